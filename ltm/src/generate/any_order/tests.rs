use crate::config::{Chunking, Config};
use crate::data::{Bytes, Tokenizer};
use crate::diffusion::Lengths;
use crate::generate::{GAP, Shown, Writer, Writing};
use crate::model::Params;
use autograd::Store;
use engine::rng::Stream;
use engine::{DType, Result};
use std::sync::Arc;

fn config(kind: &str, chunking: Chunking) -> Config {
    let mut config = Config::preset("tiny").unwrap();
    config
        .set_all(&format!("model.kind={kind} model.layers=1 model.dim=16 model.heads=2 model.seq=24 model.window=8"))
        .unwrap();
    config.data.chunking = chunking;
    config.resolved().unwrap()
}

/// A model of random weights.
struct Model {
    config: Config,
    params: Params,
    store: Store,
}

impl Model {
    fn new(kind: &str, chunking: Chunking) -> Self {
        let config = config(kind, chunking);
        let mut store = Store::default();
        let params = Params::new(&config.model, DType::F32, &mut store);
        // Also the gates that begin as zeros, so that every token depends on all others.
        for (site, p) in params.iter().enumerate() {
            let mut values = vec![0.0; p.spec.shape.numel()];
            // A strong modulation would drown what is said of the text.
            let scale = if p.name.starts_with("time_") || p.name.contains("modulation") { 0.1 } else { 0.5 };
            Stream::new(3, site as u32).fill_normal(0, &mut values, |x| scale * x);
            store.get_mut(p.id).set_f64(&values);
        }
        Self { config, params, store }
    }

    fn writer(&mut self, lengths: Option<&Lengths>, writing: Writing) -> Result<Writer> {
        Writer::new(&self.config, &self.params, &mut self.store, Arc::new(Bytes), lengths, writing)
    }

    /// A text and the drafts before it.
    fn text(&mut self, prompt: Option<&str>, sample: u32, writing: Writing) -> (String, Vec<String>) {
        let mut writer = self.writer(None, writing).unwrap();
        let (mut text, mut drafts) = (String::new(), Vec::new());
        let show = &mut |shown: Shown<'_>| {
            match shown {
                Shown::Piece(piece) => text.push_str(piece),
                Shown::Draft(draft) => drafts.push(draft.to_string()),
            }
            Ok(())
        };
        writer.text(&mut self.store, prompt, sample, show).unwrap();
        (text, drafts)
    }
}

fn writing(tokens: usize) -> Writing {
    Writing { tokens: Some(tokens), ..Writing::default() }
}

#[test]
fn the_same_seed_gives_the_same_text() {
    for kind in ["mdlm", "sedd", "md4"] {
        let mut model = Model::new(kind, Chunking::Windows);
        let first = model.text(Some("It was"), 1, writing(12));
        assert_eq!(first, model.text(Some("It was"), 1, writing(12)), "{kind}");
        let others = [
            (Some("It was"), 2, writing(12)),
            (Some("It is!"), 1, writing(12)),
            (None, 1, writing(12)),
            (Some("It was"), 1, Writing { seed: 1, ..writing(12) }),
            (Some("It was"), 1, Writing { steps: Some(2), ..writing(12) }),
            (Some("It was"), 1, Writing { temperature: 3.0, ..writing(12) }),
            (Some("It was"), 1, Writing { suffix: Some("end.".into()), ..writing(12) }),
        ];
        for (prompt, sample, writing) in others {
            assert_ne!(
                model.text(prompt, sample, writing.clone()).0,
                first.0,
                "{kind}: {prompt:?} {sample} {writing:?}"
            );
        }
    }
}

/// Every call of the network ends with a draft.
#[test]
fn steps_bound_the_calls() {
    let mut model = Model::new("md4", Chunking::Windows);
    for (steps, most) in [(None, 12), (Some(0), 12), (Some(1), 1), (Some(3), 3), (Some(1000), 12)] {
        for suffix in [None, Some("end".to_string())] {
            let (_, drafts) = model.text(Some("It"), 0, Writing { steps, suffix, ..writing(12) });
            let exactly = steps.is_none_or(|steps| steps < 2);
            assert!(drafts.len() <= most && (!exactly || drafts.len() == most), "{steps:?}: {drafts:?}");
            assert!(drafts.iter().rev().skip(1).all(|draft| draft.contains(GAP)), "{drafts:?}");
        }
    }
    // No gap, no call.
    assert_eq!(model.text(Some("It"), 0, writing(0)), (String::new(), Vec::new()));
    // Longer than the network's positions.
    assert!(model.text(Some("It"), 0, writing(60)).1.len() == 60);
}

#[test]
fn a_model_of_documents_draws_their_lengths() {
    let mut model = Model::new("mdlm", Chunking::Documents);
    // An unlikely end token, which top-k leaves out, so that texts are as long as they are to be.
    let embedding = model.params.iter().next().unwrap();
    let mut values = model.store.get(embedding.id).to_f64();
    let row = usize::from(Bytes.end()) * 16;
    values[row..row + 16].fill(0.0);
    model.store.get_mut(embedding.id).set_f64(&values);
    let counts: Vec<u64> = (1..=24).map(|length| if matches!(length, 5 | 9) { 1 << 40 } else { 0 }).collect();
    let lengths: Lengths = serde_json::from_value(serde_json::json!({ "counts": counts })).unwrap();
    let mut tokens = |prompt, writing: Writing| {
        let mut writer = model.writer(Some(&lengths), Writing { top_k: 20, ..writing }).unwrap();
        let mut drawn: Vec<usize> = (0..20)
            .map(|sample| {
                let mut longest = 0;
                let show = &mut |shown: Shown<'_>| {
                    if let Shown::Draft(draft) = shown {
                        longest = longest.max(draft.chars().count());
                    }
                    Ok(())
                };
                writer.text(&mut model.store, prompt, sample, show).unwrap();
                longest
            })
            .collect();
        drawn.sort_unstable();
        drawn.dedup();
        drawn
    };
    assert_eq!(tokens(None, Writing::default()), [5, 9]);
    assert_eq!(tokens(Some("abc"), Writing::default()), [2, 6]);
    assert_eq!(tokens(Some("abcdef"), Writing::default()), [3]);
    // The document's end stands behind the suffix.
    let suffix = Some("xyz".to_string());
    assert_eq!(tokens(Some("abc"), Writing { suffix, ..Writing::default() }), [2]);
    assert_eq!(tokens(None, writing(7)), [7]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let suffix = || Writing { suffix: Some("the end".into()), ..Writing::default() };
    let error = Model::new("ar", Chunking::Windows).writer(None, suffix()).err().unwrap().to_string();
    assert!(error.contains("model.kind = ar only continues text"), "{error}");
    let mut model = Model::new("mdlm", Chunking::Windows);
    let error = model.writer(None, Writing { steps: Some(1 << 17), ..suffix() }).err().unwrap().to_string();
    assert!(error.contains("131072 steps"), "{error}");
    let writer = model.writer(None, Writing { tokens: Some(12), ..suffix() }).unwrap();
    assert!(writer.beginning(Some("12345")).is_ok());
    let error = writer.beginning(Some("123456")).unwrap_err().to_string();
    assert!(
        error.contains("7 tokens and 12 more before a suffix of 7 make up to 26 positions, the model has 25"),
        "{error}"
    );
}
