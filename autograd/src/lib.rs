//! Record, plan, replay.
