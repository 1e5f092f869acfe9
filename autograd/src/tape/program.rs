use super::optimizer::Schedule;
use super::{Tape, Tensor};
use crate::{Plan, Value};

/// A plan on a tape: computes values and gradients, and with an optimiser takes steps.
#[derive(Debug)]
pub struct Program<'t> {
    pub(super) tape: &'t Tape,
    pub(super) plan: Plan,
    /// The parameters whose gradients it computes.
    pub(super) wants: Vec<Value>,
    pub(super) schedule: Option<Schedule>,
}

impl<'t> Program<'t> {
    pub(super) fn new(tape: &'t Tape, plan: Plan, wants: Vec<Value>) -> Self {
        Self { tape, plan, wants, schedule: None }
    }

    /// Runs it once on the numbers that inputs and parameters have now.
    pub fn run(&mut self) {
        let store = &mut self.tape.store.borrow_mut();
        if let Some(schedule) = &mut self.schedule {
            schedule.step += 1;
            store.get_mut(schedule.buffer).set_f64(&[schedule.rate, f64::from(schedule.step)]);
            if let Some(step) = self.tape.step.get() {
                let id = self.tape.graph.borrow().leaf_id(step).expect("a leaf");
                store.get_mut(id).set_f64(&[f64::from(schedule.step)]);
            }
        }
        self.plan.run_all(store);
    }

    /// The numbers of a value that the program keeps: those it was asked to compute, or the loss.
    ///
    /// # Panics
    /// If it does not keep the value, or the device has failed.
    #[track_caller]
    pub fn get(&self, value: Tensor) -> Vec<f64> {
        let value = self.tape.own(value).unwrap_or_else(|e| panic!("{e}"));
        self.tape.store.borrow().get(self.plan.value(value)).read_f64().expect("a sound device")
    }

    /// The first number of a value that the program keeps, for instance the loss.
    ///
    /// # Panics
    /// As [`get`](Self::get).
    #[track_caller]
    pub fn number(&self, value: Tensor) -> f64 {
        self.get(value)[0]
    }

    /// The gradient of a parameter after a run.
    ///
    /// # Panics
    /// If the program does not compute it, or the device has failed.
    #[track_caller]
    pub fn gradient(&self, parameter: Tensor) -> Vec<f64> {
        let leaf = self.tape.own(parameter).unwrap_or_else(|e| panic!("{e}"));
        self.tape.store.borrow().get(self.plan.grad(leaf)).read_f64().expect("a sound device")
    }

    /// Changes the learning rate.
    pub fn set_rate(&mut self, rate: f64) {
        if let Some(schedule) = &mut self.schedule {
            schedule.rate = rate;
        }
    }

    /// The plan, for its cost, its memory and its printout.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}
