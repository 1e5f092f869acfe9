//! A loss that is not finite: the error names step and op; the run stops or leaves the update out, by setting.

use crate::weights;
use engine::Device;
use ltm::train::Trainer;
use tests::{batch, tiny};

#[test]
fn the_first_bad_number_is_named_and_nothing_changes() {
    let sizes = "model.dim=32 model.seq=16 model.window=4 model.latents=2 fast.steps=2 train.batch=3";
    let batch = batch(3, 16, 0);
    for policy in ["stop", "skip"] {
        let mut t = Trainer::new(tiny(&format!("{sizes} train.non_finite={policy}")), &Device::Cpu).unwrap();
        t.train(&batch).unwrap();
        // The embedding of a token of the batch.
        let table = t.params.get("tok_embeddings").id;
        t.store.get_mut(table).as_mut_slice::<f32>()[batch.tokens[20] as usize * 32] = f32::NAN;
        let before = weights(&t);
        let result = t.train(&batch);
        let (message, step) = match policy {
            "stop" => (result.unwrap_err().to_string(), 1),
            _ => (result.unwrap().skipped.unwrap(), 2),
        };
        assert!(message.starts_with("step 2: the loss is not finite: ") && !message.contains('\n'), "{message}");
        // The table itself is the first bad input that the step reads.
        assert!(message.contains("embedding"), "{message}");
        assert!(weights(&t) == before, "weights changed");
        assert_eq!(t.step, step);
    }
}
