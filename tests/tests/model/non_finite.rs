//! A non-finite loss: the error names step and op; depending on the setting, the run stops or skips the update.

use crate::weights;
use engine::Device;
use ltm::data::Batch;
use ltm::train::Trainer;
use tests::{batch, tiny};

const SIZES: &str = "model.dim=32 model.seq=16 model.window=4 model.latents=2 fast.steps=2 train.batch=3";

/// A trainer with further settings, after its first step.
fn trainer(batch: &Batch, more: &str) -> Trainer {
    let mut t = Trainer::new(tiny(&format!("{SIZES} {more}")), &Device::CPU).unwrap();
    t.train(batch).unwrap();
    t.check_finite().unwrap();
    t
}

#[test]
fn the_first_bad_number_is_named_and_nothing_changes() {
    let batch = batch(3, 16, 0);
    for policy in ["stop", "skip"] {
        // The rate of the second step throws latents out of all bounds.
        let mut t = trainer(
            &batch,
            &format!("fast.posterior=adamw fast.rate_end=1e30 train.steps=2 train.non_finite={policy}"),
        );
        let before = weights(&t);
        let result = t.train(&batch);
        let (message, step) = match policy {
            "stop" => (result.unwrap_err().to_string(), 1),
            _ => (result.unwrap().skipped.unwrap(), 2),
        };
        let said = "step 2: the loss is not finite: fast step 1, latents";
        assert!(message.starts_with(said) && !message.contains('\n'), "{message}");
        assert!(weights(&t) == before, "weights changed");
        assert_eq!(t.step, step);
    }
}

/// No batch is to blame for them, so leaving batches out does not help.
#[test]
fn weights_that_are_not_finite_end_training() {
    let batch = batch(3, 16, 0);
    for (policy, with) in [("stop", f32::NAN), ("skip", f32::NAN), ("skip", f32::INFINITY)] {
        let mut t = trainer(&batch, &format!("train.non_finite={policy}"));
        // The embedding of a token of the batch.
        let table = t.params.get("tok_embeddings").id;
        t.store.get_mut(table).as_mut_slice::<f32>()[batch.tokens[20] as usize * 32] = with;
        let errors = [t.train(&batch).map(|_| ()), t.check_finite()].map(|result| result.unwrap_err().to_string());
        assert_eq!(errors[0], errors[1]);
        let said = "tok_embeddings has NaN, infinite or huge weights (above 1e19)";
        let advice = "try a new run with a lower slow.rate";
        assert_eq!(errors[0], format!("training has diverged: after step 1, {said}; {advice}"));
        let mut file = Vec::new();
        assert_eq!(t.write_weights(&mut file).unwrap_err().to_string(), said);
        assert!(file.is_empty());
        assert_eq!(t.step, 1);
    }
}
