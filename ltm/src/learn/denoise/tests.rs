use super::*;
use crate::config::{Masking, ModelKind};
use crate::diffusion::{MD4, MDLM, Schedule, by_grid, fill};
use crate::generate::{Sampler, Writing};
use crate::model::TimeEmbedding;
use crate::safetensors::SafeTensors;
use engine::DType;

/// Text and infilled text of an independent implementation, after every step, from its uniform numbers.
#[test]
fn generation_draws_the_golden_tokens() {
    let bytes = include_bytes!("../../../../tests/fixtures/diffusion_tiny.safetensors");
    let file = SafeTensors::parse(&bytes[..]).unwrap();
    let size = |key: &str| file.metadata::<usize>(key).unwrap();
    let (seq, vocab) = (size("seq"), size("vocab"));
    let model = ModelConfig {
        kind: ModelKind::Ar,
        layers: size("n_layers"),
        dim: size("dim"),
        heads: size("n_heads"),
        ffn: size("ffn_hidden"),
        vocab,
        seq,
        max_seq: seq,
        window: seq,
        latents: 1,
        norm_eps: file.metadata("norm_eps").unwrap(),
        rope_theta: file.metadata("rope_theta").unwrap(),
    };
    let embedding = TimeEmbedding { frequencies: size("frequencies"), width: size("cond_dim") };
    for (name, method, time, top_p) in [("sample", MDLM, None, 1.0), ("infill", MD4, Some(embedding), 0.9)] {
        let mut store = Store::default();
        let params = Params::denoiser(&model, Some(embedding), DType::F64, &mut store);
        params.load(&mut store, &file, "w.").unwrap();
        let kept =
            |name: &str| time.is_some() || !(name.starts_with("time_embedding.") || name.contains("modulation."));
        let params = params.with_ids(params.iter().map(|p| kept(&p.name).then_some(p.id)));
        let texts = MaskedTexts::new(&model, time, [1, seq], DType::F64, &mut store);
        let masker = Masker { schedule: Schedule::Linear, masking: Masking::Bernoulli, seed: 0 };
        let inputs = Masked { texts, method, masker, shape: Shape { rows: 1, positions: seq, vocab } };
        let foreteller = Foreteller::of(inputs, &model, &params, &mut store).unwrap();
        let mut network = foreteller.on(&mut store);
        let sampler = Sampler::new(&Writing { top_p, ..Writing::default() }, 0).unwrap();
        let floats = |what: &str| file.get_f64(&format!("{name}.{what}")).unwrap();
        let (grid, uniforms) = (floats("grid"), floats("uniforms"));
        let ids = file.get_i64(&format!("{name}.trace")).unwrap().into_iter().map(|id| id as i32).collect::<Vec<_>>();
        for b in 0..2 {
            let trace = |step: usize| &ids[(step * 2 + b) * seq..][..seq];
            let masked: Vec<_> = (0..seq).filter(|&i| trace(0)[i] == vocab as i32).collect();
            let given = |step, i| [0, 1].map(|k| uniforms[((step * 2 + b) * seq + i) * 2 + k]);
            let reveals = by_grid(&masked, Schedule::Linear, &grid, given);
            let (mut text, mut calls) = (trace(0).to_vec(), reveals.iter());
            fill(&mut network, &mut text, &reveals, &sampler, vocab, &mut |now| {
                let t = calls.next().unwrap().t;
                let step = grid.iter().position(|&time| time == t).unwrap();
                assert_eq!(now, trace(step + 1), "{name}, step {step}");
                Ok(())
            })
            .unwrap();
            assert_eq!(text, trace(grid.len() - 1));
        }
    }
}
