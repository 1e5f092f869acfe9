//! One op, one room.
