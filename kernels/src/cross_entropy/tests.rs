use super::*;
use crate::testing::{self, with_threads};
use engine::Device;
use engine::simd::for_each_level;

const DTYPES: [DType; 2] = [DType::F32, DType::F64];
/// Enough tokens for three chunks, the last one short.
const TOKENS: usize = 2 * cpu::CHUNK + 19;
const BOTH: [Want; 4] = [Want::Write, Want::Write, Want::Skip, Want::Skip];

/// Random inputs with some targets ignored.
fn inputs([batch, tokens, dim, vocab]: [usize; 4], dtype: DType) -> Vec<Buffer> {
    let sizes = Sizes { batch, tokens, heads: 1, head_dim: dim, window: 1, latents: 1, ffn: 1, vocab };
    cases(&sizes)[1].buffers(dtype, 3)
}

fn specs(ins: &[Buffer]) -> Vec<Spec> {
    ins.iter().map(Buffer::spec).collect()
}

fn forward(ins: &[Buffer]) -> Vec<Buffer> {
    testing::forward(&LmHead, &ins.iter().collect::<Vec<_>>())
}

/// Adding starts from ones.
fn vjp(ins: &[Buffer], wants: &[Want], d_loss: f64) -> Vec<Buffer> {
    let d_loss = Buffer::from_f64(ins[0].dtype(), &[1], &[d_loss]);
    testing::vjp(&LmHead, wants, &ins.iter().collect::<Vec<_>>(), &forward(ins), &d_loss)
}

/// The same for both in one.
fn fused(ins: &[Buffer], wants: &[Want]) -> (Vec<Buffer>, Vec<Buffer>) {
    let holding = |spec: Spec, x: f64| {
        let mut buffer = Buffer::new(spec);
        buffer.set_f64(&vec![x; spec.shape.numel()]);
        buffer
    };
    let specs = specs(ins);
    let mut outs: Vec<_> = LmHead.infer(&specs).unwrap().iter().map(|out| holding(out.spec, f64::NAN)).collect();
    let before = |(&spec, want): (&Spec, &Want)| match want {
        Want::Skip => Buffer::default(),
        Want::Write => holding(spec, f64::NAN),
        Want::Add => holding(spec, 1.0),
    };
    let mut d_ins: Vec<_> = specs.iter().zip(wants).map(before).collect();
    let mut scratch = testing::garbage(LmHead.scratch(&Device::Cpu, &specs, Pass::Fused(wants)));
    let mut cx = Context { device: &Device::Cpu, scratch: &mut scratch };
    LmHead.forward_vjp(&mut cx, wants, &ins.iter().collect::<Vec<_>>(), &mut outs, &mut d_ins);
    (outs, d_ins)
}

fn bytes(buffers: &[Buffer]) -> Vec<&[u8]> {
    buffers.iter().filter(|b| !b.is_empty()).map(Buffer::as_bytes).collect()
}

#[track_caller]
fn assert_close(what: &str, got: &Buffer, want: &[f64]) {
    let tolerance = if got.dtype() == DType::F32 { 1e-5 } else { 1e-13 };
    let largest = want.iter().fold(1.0f64, |m, x| m.max(x.abs()));
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.to_f64().iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance * largest, "{what}[{i}] is {got}, must be {want}");
    }
}

/// Loss, nll, lse, d_hidden, d_table in f64, one token and one logit at a time.
fn naive(ins: &[Buffer]) -> [Vec<f64>; 5] {
    let [hidden, table, targets, scale] = [0, 1, 2, 3].map(|i| ins[i].to_f64());
    let dim = ins[0].shape().last();
    let mut out = [vec![0.0], vec![], vec![], vec![0.0; hidden.len()], vec![0.0; table.len()]];
    for (n, (h, &target)) in hidden.chunks(dim).zip(&targets).enumerate() {
        if target < 0.0 {
            out[1].push(0.0);
            out[2].push(0.0);
            continue;
        }
        let logits: Vec<f64> = table.chunks(dim).map(|e| h.iter().zip(e).map(|(h, e)| h * e).sum()).collect();
        let total: f64 = logits.iter().map(|x| x.exp()).sum();
        let nll = -(logits[target as usize].exp() / total).ln();
        out[0][0] += scale[0] * nll;
        out[1].push(nll);
        out[2].push(total.ln());
        for (v, x) in logits.iter().enumerate() {
            let d = scale[0] * (x.exp() / total - f64::from(u8::from(v == target as usize)));
            for i in 0..dim {
                out[3][n * dim + i] += d * table[v * dim + i];
                out[4][v * dim + i] += d * h[i];
            }
        }
    }
    out
}

#[test]
fn matches_the_formula_token_by_token() {
    for dtype in DTYPES {
        for sizes in [[1, 1, 1, 1], [2, 3, 2, 2], [3, 5, 4, 17], [1, cpu::CHUNK, 5, 16], [1, TOKENS, 6, 37]] {
            let ins = inputs(sizes, dtype);
            let expected = naive(&ins);
            let outs = forward(&ins);
            for (i, name) in ["loss", "nll", "lse"].into_iter().enumerate() {
                assert_close(name, &outs[i], &expected[i]);
            }
            for want in [Want::Write, Want::Add] {
                let base = if want == Want::Add { 1.0 } else { 0.0 };
                let d_ins = vjp(&ins, &[want, want, Want::Skip, Want::Skip], -1.5);
                for (i, name) in ["d_hidden", "d_table"].into_iter().enumerate() {
                    let expected: Vec<_> = expected[3 + i].iter().map(|d| base - 1.5 * d).collect();
                    assert_close(name, &d_ins[i], &expected);
                }
            }
        }
    }
}

#[test]
fn the_fused_pass_gives_the_same() {
    const OPTIONS: [Want; 3] = [Want::Skip, Want::Write, Want::Add];
    for dtype in DTYPES {
        let ins = inputs([2, TOKENS / 2, 6, 37], dtype);
        for wants in OPTIONS.iter().flat_map(|&a| OPTIONS.map(|b| [a, b, Want::Skip, Want::Skip])) {
            let (outs, d_ins) = fused(&ins, &wants);
            assert!(bytes(&outs) == bytes(&forward(&ins)), "{wants:?}");
            let exact = vjp(&ins, &wants, 1.0);
            if wants[1].is_wanted() {
                assert!(bytes(&d_ins) == bytes(&exact), "{wants:?}");
            } else if wants[0].is_wanted() {
                // Here the sum over the vocabulary is divided at its end.
                assert_close("d_hidden", &d_ins[0], &exact[0].to_f64());
            }
        }
    }
}

/// A sample alone and among others, on any number of threads and any instruction set: the same bits.
#[test]
fn a_sample_does_not_depend_on_its_batch() {
    for dtype in DTYPES {
        let [batch, tokens, dim, vocab] = [4, cpu::CHUNK / 2 + 9, 20, 90];
        let ins = inputs([batch, tokens, dim, vocab], dtype);
        let (outs, d_ins) = fused(&ins, &BOTH);
        for sample in 0..batch {
            let part = |x: &Buffer| {
                let n = x.len() / batch;
                let mut dims = x.shape().dims().to_vec();
                dims[0] = 1;
                Buffer::from_f64(x.dtype(), &dims, &x.to_f64()[sample * n..][..n])
            };
            let alone = [part(&ins[0]), ins[1].clone(), part(&ins[2]), ins[3].clone()];
            let (alone, d_alone) = fused(&alone, &BOTH);
            for (alone, all) in [(&alone[1], &outs[1]), (&alone[2], &outs[2]), (&d_alone[0], &d_ins[0])] {
                assert_eq!(alone.as_bytes(), part(all).as_bytes(), "sample {sample}");
            }
        }
        for_each_level(|level| {
            for threads in [1, 3] {
                let (again, d_again) = with_threads(threads, || fused(&ins, &BOTH));
                assert_eq!(bytes(&again), bytes(&outs), "{level}, {threads} threads");
                assert_eq!(bytes(&d_again), bytes(&d_ins), "{level}, {threads} threads");
            }
        });
    }
}

#[test]
fn ignored_tokens_do_not_exist() {
    for dtype in DTYPES {
        let mut ins = inputs([1, TOKENS, 3, 7], dtype);
        let (outs, d_ins) = fused(&ins, &BOTH);
        let targets = ins[2].to_f64();
        let mut hidden = ins[0].to_f64();
        assert!(targets.contains(&-1.0));
        for (row, _) in hidden.chunks_mut(3).zip(&targets).filter(|(_, target)| **target < 0.0) {
            row.fill(f64::NAN);
        }
        ins[0].set_f64(&hidden);
        let (again, d_again) = fused(&ins, &BOTH);
        assert_eq!((bytes(&again), bytes(&d_again)), (bytes(&outs), bytes(&d_ins)));

        ins[2].set_f64(&vec![-1.0; TOKENS]);
        for (wants, base) in [(BOTH, 0.0), ([Want::Add, Want::Add, Want::Skip, Want::Skip], 1.0)] {
            let (outs, d_ins) = fused(&ins, &wants);
            assert!(outs.iter().all(|out| out.to_f64().iter().all(|&x| x == 0.0)));
            assert!(d_ins[..2].iter().all(|d| d.to_f64().iter().all(|&x| x == base)));
        }
    }
}

/// More columns than a block has, the largest logits of which come late, and more tokens than a group has.
#[test]
fn sums_over_many_blocks() {
    const HIDDEN: [Want; 4] = [Want::Write, Want::Skip, Want::Skip, Want::Skip];
    for dtype in DTYPES {
        // Many blocks, many groups, and both with as many parts as threads.
        for [tokens, vocab] in [[3, 3 * stream::BLOCK + 5], [stream::GROUP + 3, 20], [200, 2 * stream::BLOCK + 5]] {
            let mut ins = inputs([1, tokens, 2, vocab], dtype);
            let table: Vec<f64> =
                (0..2 * vocab).map(|i| (i as f64 * 0.7).sin() * 8.0 * i as f64 / vocab as f64).collect();
            ins[1].set_f64(&table);
            let expected = naive(&ins);
            let (outs, d_ins) = fused(&ins, &HIDDEN);
            assert_close("nll", &outs[1], &expected[1]);
            assert_close("lse", &outs[2], &expected[2]);
            assert_close("d_hidden", &d_ins[0], &expected[3]);
            for_each_level(|level| {
                for threads in [1, 2, 3] {
                    let (again, d_again) = with_threads(threads, || fused(&ins, &HIDDEN));
                    assert!(bytes(&again) == bytes(&outs), "{level}, {threads} threads");
                    assert!(bytes(&d_again) == bytes(&d_ins), "{level}, {threads} threads");
                }
            });
        }
    }
}

/// A logit that is not finite, wherever it stands, shows in its token's nll and gradient.
#[test]
fn what_is_not_finite_surfaces() {
    const VOCAB: usize = 37;
    for dtype in DTYPES {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for at in 0..VOCAB {
                let mut table: Vec<f64> = (0..VOCAB).map(|i| (i % 7) as f64 - 3.0).collect();
                table[at] = bad;
                let ins = [
                    Buffer::from_f64(dtype, &[1, 1, 1], &[1.0]),
                    Buffer::from_f64(dtype, &[VOCAB, 1], &table),
                    Buffer::from_f64(DType::I32, &[1, 1], &[3.0]),
                    Buffer::from_f64(dtype, &[1], &[1.0]),
                ];
                let (outs, d_ins) = fused(&ins, &BOTH);
                assert!(outs.iter().all(|out| out.to_f64()[0].is_nan()), "{bad} at {at}");
                assert!(d_ins[0].to_f64()[0].is_nan(), "{bad} at {at}");
                let (outs, d_ins) = fused(&ins, &[Want::Write, Want::Skip, Want::Skip, Want::Skip]);
                assert!(outs[1].to_f64()[0].is_nan() && d_ins[0].to_f64()[0].is_nan(), "{bad} at {at}");
            }
            // And in no other token's.
            let mut ins = inputs([1, 5, 3, VOCAB], dtype);
            ins[2].set_f64(&[1.0, 36.0, 0.0, 4.0, 2.0]);
            let clean = fused(&ins, &BOTH);
            let mut hidden = ins[0].to_f64();
            hidden[2 * 3 + 1] = bad;
            ins[0].set_f64(&hidden);
            let spoilt = fused(&ins, &BOTH);
            let others = |x: &Buffer, width: usize| {
                let rows: Vec<_> = x.to_f64().chunks(width).map(<[f64]>::to_vec).collect();
                assert!(rows.len() == 5);
                [rows[0].clone(), rows[1].clone(), rows[3].clone(), rows[4].clone()]
            };
            assert!(spoilt.0[1].to_f64()[2].is_nan() && spoilt.0[0].to_f64()[0].is_nan(), "{bad}");
            assert_eq!(others(&spoilt.0[1], 1), others(&clean.0[1], 1), "{bad}");
            assert_eq!(others(&spoilt.1[0], 3), others(&clean.1[0], 3), "{bad}");
        }
    }
}

/// Logits far from zero do not overflow, and a sure model's small nll keeps its digits.
#[test]
fn large_and_sure_logits() {
    let ins = |table: &[f64]| {
        [
            Buffer::from_f64(DType::F32, &[1, 1, 1], &[1.0]),
            Buffer::from_f64(DType::F32, &[table.len(), 1], table),
            Buffer::from_f64(DType::I32, &[1, 1], &[0.0]),
            Buffer::from_f64(DType::F32, &[1], &[1.0]),
        ]
    };
    let nll = |table: &[f64]| forward(&ins(table))[1].to_f64()[0];
    assert_eq!(nll(&[3e4, -3e4]), 0.0);
    assert_eq!(nll(&[-3e4, 3e4]), 6e4);
    assert!((nll(&[5e4, 5e4]) - 2f64.ln()).abs() < 1e-7);
    let sure = nll(&[64.0, 54.0]);
    assert!((sure / (-10f64).exp().ln_1p() - 1.0).abs() < 2e-3, "{sure}");
}

#[test]
fn errors_say_what_would_be_right() {
    let f32 = |dims: &[usize]| Spec::new(DType::F32, dims);
    let i32 = |dims: &[usize]| Spec::new(DType::I32, dims);
    let message = |ins: &[Spec]| LmHead.infer(ins).unwrap_err().to_string();
    let good = [f32(&[2, 3, 4]), f32(&[9, 4]), i32(&[2, 3]), f32(&[1])];
    assert!(LmHead.infer(&good).is_ok());
    let with = |i: usize, spec: Spec| {
        let mut ins = good;
        ins[i] = spec;
        message(&ins)
    };
    assert_eq!(message(&good[..3]), "takes 4 inputs (hidden, table, targets, scale), got 3");
    assert_eq!(with(0, f32(&[6, 4])), "hidden is f32[6, 4], must have 3 dimensions");
    assert_eq!(with(1, f32(&[9, 5])), "table is f32[9, 5], must be f32[9, 4]");
    assert_eq!(with(2, f32(&[2, 3])), "targets is f32[2, 3], must be i32[2, 3]");
    assert_eq!(with(3, f32(&[2, 3])), "scale is f32[2, 3], must be f32[1]");
}

#[test]
fn cost_counts_the_products() {
    let ins = specs(&inputs([2, 3, 4, 9], DType::F32));
    let product = 2 * 6 * 9 * 4;
    let flops = |pass| LmHead.cost(&ins, pass).flops;
    let hidden = [Want::Write, Want::Skip, Want::Skip, Want::Skip];
    assert_eq!(flops(Pass::Forward), product + 4 * 54);
    assert_eq!(flops(Pass::Vjp(&hidden)), 2 * product + 3 * 54);
    assert_eq!(flops(Pass::Fused(&hidden)), 2 * product + 7 * 54);
    assert_eq!(flops(Pass::Fused(&BOTH)), 3 * product + 7 * 54);
    assert_eq!(LmHead.cost(&ins, Pass::Vjp(&[Want::Skip; 4])), Cost::default());
    assert_eq!(LmHead.cost(&ins, Pass::Fused(&[Want::Skip; 4])), LmHead.cost(&ins, Pass::Forward));
}
