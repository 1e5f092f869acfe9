//! A loss that is not finite: the error names step, op and sample; the run stops or leaves the update out, by setting.

use engine::Device;
use ltm::data::{Batch, SampleInfo};
use ltm::train::Trainer;
use tests::tiny;

fn trainer(policy: &str) -> Trainer {
    let sizes = "model.dim=32 model.seq=16 model.window=4 model.latents=2 fast.steps=2 train.batch=3";
    Trainer::new(tiny(&format!("{sizes} train.non_finite={policy}")), &Device::Cpu).unwrap()
}

/// Token 7 stands in the second sample only.
fn batch() -> Batch {
    let mut batch = Batch::new(3, 16);
    for (i, t) in batch.tokens.iter_mut().enumerate() {
        *t = if i == 20 { 7 } else { (i % 5) as i32 };
    }
    for (b, sample) in batch.samples.iter_mut().enumerate() {
        *sample = SampleInfo { id: 40 + b as u32, scored: 16, bytes: 16, nats: None };
    }
    batch
}

/// Spoils the embedding of token 7.
fn spoil(t: &mut Trainer) {
    let dim = t.config.model.dim;
    let table = t.params.get("tok_embeddings").id;
    t.store.get_mut(table).as_mut_slice::<f32>()[7 * dim] = f32::NAN;
}

fn weights(t: &Trainer) -> Vec<u8> {
    t.params.iter().flat_map(|p| t.store.get(p.id).as_bytes().to_vec()).collect()
}

#[test]
fn the_first_bad_number_is_named_and_nothing_changes() {
    for policy in ["stop", "skip"] {
        let mut t = trainer(policy);
        t.train(&batch()).unwrap();
        spoil(&mut t);
        let before = weights(&t);
        let result = t.train(&batch());
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
