use super::*;
use crate::testing::{bytes, check, check_all, distance, forward_vjp, same_bits, sizes, vjp};

const DTYPES: [DType; 2] = [DType::F32, DType::F64];
/// Enough tokens for three chunks, the last one short.
const TOKENS: usize = 2 * cpu::CHUNK + 19;
const HIDDEN: [Want; 4] = [Want::Write, Want::Skip, Want::Skip, Want::Skip];
const BOTH: [Want; 4] = [Want::Write, Want::Write, Want::Skip, Want::Skip];

/// Random inputs with some targets ignored.
fn case([batch, tokens, dim, vocab]: [usize; 4]) -> Case {
    cases(&Sizes { batch, tokens, heads: 1, head_dim: dim, vocab, ..sizes()[0] }).swap_remove(1)
}

fn inputs(sizes: [usize; 4], dtype: DType) -> Vec<Buffer> {
    case(sizes).buffers(dtype, 3)
}

/// With one hidden number, 1, the logits are the numbers of the table.
fn one_token(dtype: DType, table: &[f64], target: f64) -> [Buffer; 4] {
    let one = |dims: &[usize]| Buffer::from_f64(dtype, dims, &[1.0]);
    let table = Buffer::from_f64(dtype, &[table.len(), 1], table);
    [one(&[1, 1, 1]), table, Buffer::from_f64(DType::I32, &[1, 1], &[target]), one(&[1])]
}

fn forward(ins: &[Buffer]) -> Vec<Buffer> {
    crate::testing::forward(&LmHead::CrossEntropy, ins)
}

/// Outputs and gradients in one pass; adding starts from ones.
fn fused(ins: &[Buffer], wants: &[Want]) -> (Vec<Buffer>, Vec<Buffer>) {
    forward_vjp(&LmHead::CrossEntropy, wants, ins)
}

#[track_caller]
fn assert_close(what: &str, got: &Buffer, want: &[f64]) {
    let error = distance(&got.to_f64(), want);
    assert!(error <= if got.dtype() == DType::F32 { 1e-5 } else { 1e-13 }, "{what} has an error of {error:e}");
}

/// Loss, nll and lse, one token and one logit at a time.
fn formula(dim: usize, ins: &[Vec<f64>]) -> [Vec<f64>; 3] {
    let losses = |(h, &target): (&[f64], &f64)| {
        let logits: Vec<f64> = ins[1].chunks(dim).map(|e| h.iter().zip(e).map(|(h, e)| h * e).sum()).collect();
        let lse = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
        if target < 0.0 { (0.0, 0.0) } else { (lse - logits[target as usize], lse) }
    };
    let (nll, lse): (Vec<f64>, Vec<f64>) = ins[0].chunks(dim).zip(&ins[2]).map(losses).unzip();
    let loss = nll.iter().enumerate().map(|(token, nll)| ins[3][token % ins[3].len()] * nll).sum();
    [vec![loss], nll, lse]
}

/// The score entropy's loss from scores and probabilities.
fn score_entropy(dim: usize, ins: &[Vec<f64>]) -> Vec<f64> {
    let vocab = (ins[1].len() / dim) as f64;
    let [_, nll, lse] = formula(dim, ins);
    let counted = (0..nll.len()).filter(|&token| ins[2][token] >= 0.0);
    let cost = |token: usize| {
        let z = lse[token].exp() / vocab;
        nll[token] + z - 1.0 - z.ln()
    };
    vec![counted.map(|token| ins[3][token] * cost(token)).sum()]
}

/// Scores that sum to one cost nothing more than the cross-entropy.
#[test]
fn normalised_scores_have_no_price() {
    let [tokens, dim, vocab] = [5, 3, 7];
    let mut ins = inputs([1, tokens, dim + 1, vocab], DType::F64);
    // The last column shifts a token's logits: first by nothing, then by −log Z.
    let with_last = |x: &Buffer, last: &[f64]| {
        let mut x = x.to_f64();
        x.chunks_mut(dim + 1).zip(last).for_each(|(row, last)| row[dim] = *last);
        x
    };
    let (hidden, table) = (with_last(&ins[0], &[0.0; 5]), with_last(&ins[1], &[1.0; 7]));
    ins[0].set_f64(&hidden);
    ins[1].set_f64(&table);
    let shifts: Vec<f64> = forward(&ins)[2].to_f64().iter().map(|lse| (vocab as f64).ln() - lse).collect();
    let hidden = with_last(&ins[0], &shifts);
    ins[0].set_f64(&hidden);
    let [plain, scores] = [LmHead::CrossEntropy, LmHead::ScoreEntropy].map(|head| forward_vjp(&head, &BOTH, &ins));
    for (name, (scores, plain)) in ["loss", "nll", "lse", "d_hidden", "d_table"]
        .iter()
        .zip(scores.0.iter().chain(&scores.1).zip(plain.0.iter().chain(&plain.1)))
    {
        assert_close(name, scores, &plain.to_f64());
    }
}

#[test]
fn matches_the_formula() {
    check_all(cases, &[], |s, number, ins| match number {
        3 => score_entropy(s.dim(), ins),
        _ => formula(s.dim(), ins)[0].clone(),
    });
    // Several chunks, blocks and groups.
    for [tokens, vocab] in [[TOKENS, 37], [stream::GROUP + 3, 20], [40, 2 * stream::BLOCK + 5]] {
        let s = Sizes { batch: 1, tokens, heads: 1, head_dim: 6, vocab, ..sizes()[0] };
        check(&cases(&s)[3], |ins| score_entropy(6, ins));
    }
    for sizes in [[1, 1, 1, 1], [3, 5, 4, 17], [1, cpu::CHUNK, 5, 16], [1, TOKENS, 6, 37]] {
        check(&case(sizes), |ins| formula(sizes[2], ins)[0].clone());
        for dtype in DTYPES {
            let ins = inputs(sizes, dtype);
            let expected = formula(sizes[2], &ins.iter().map(Buffer::to_f64).collect::<Vec<_>>());
            for ((out, expected), name) in forward(&ins).iter().zip(&expected).zip(["loss", "nll", "lse"]) {
                assert_close(name, out, expected);
            }
        }
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

/// More columns than a block has, with the largest logits late, and more tokens than a group has.
#[test]
fn sums_over_many_blocks() {
    for dtype in DTYPES {
        // Many blocks, many groups, and many of both with one part per thread.
        for [tokens, vocab] in [[3, 3 * stream::BLOCK + 5], [stream::GROUP + 3, 20], [200, 2 * stream::BLOCK + 5]] {
            let mut ins = inputs([1, tokens, 2, vocab], dtype);
            let table: Vec<f64> =
                (0..2 * vocab).map(|i| (i as f64 * 0.7).sin() * 8.0 * i as f64 / vocab as f64).collect();
            ins[1].set_f64(&table);
            let expected = formula(2, &ins.iter().map(Buffer::to_f64).collect::<Vec<_>>());
            let all = same_bits("both in one", || {
                let (outs, d_ins) = fused(&ins, &HIDDEN);
                [outs, d_ins].concat()
            });
            assert_close("nll", &all[1], &expected[1]);
            assert_close("lse", &all[2], &expected[2]);
            let one = Buffer::from_f64(dtype, &[1], &[1.0]);
            assert_close(
                "d_hidden",
                &all[3],
                &vjp(&LmHead::CrossEntropy, &HIDDEN, &ins, &forward(&ins), &one)[0].to_f64(),
            );
        }
    }
}

/// f32 against f64, also when one gradient is written and the other added, for each case.
#[test]
fn the_fused_pass_gives_the_same() {
    const OPTIONS: [Want; 3] = [Want::Skip, Want::Write, Want::Add];
    let s = Sizes { batch: 2, tokens: TOKENS / 2, heads: 1, head_dim: 6, vocab: 37, ..sizes()[0] };
    for (dtype, case) in DTYPES.into_iter().flat_map(|dtype| cases(&s).into_iter().map(move |case| (dtype, case))) {
        let (op, ins) = (&*case.op, case.buffers(dtype, 3));
        for wants in OPTIONS.iter().flat_map(|&a| OPTIONS.map(|b| [a, b, Want::Skip, Want::Skip])) {
            let (outs, d_ins) = forward_vjp(op, &wants, &ins);
            assert!(bytes(&outs) == bytes(&crate::testing::forward(op, &ins)), "{wants:?}");
            let one = Buffer::from_f64(dtype, &[1], &[1.0]);
            let exact = vjp(op, &wants, &ins, &outs, &one);
            if wants[1].is_wanted() {
                assert!(bytes(&d_ins) == bytes(&exact), "{wants:?}");
            } else if wants[0].is_wanted() {
                // This pass divides the sum over the vocabulary at the end.
                assert_close("d_hidden", &d_ins[0], &exact[0].to_f64());
            }
        }
    }
}

/// A non-finite logit at any place shows in its token's nll and gradient.
#[test]
fn what_is_not_finite_surfaces() {
    const VOCAB: usize = 37;
    for dtype in DTYPES {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for at in 0..VOCAB {
                let mut table: Vec<f64> = (0..VOCAB).map(|i| (i % 7) as f64 - 3.0).collect();
                table[at] = bad;
                let ins = one_token(dtype, &table, 3.0);
                let (outs, d_ins) = fused(&ins, &BOTH);
                assert!(outs.iter().all(|out| out.to_f64()[0].is_nan()), "{bad} at {at}");
                assert!(d_ins[0].to_f64()[0].is_nan(), "{bad} at {at}");
                let (outs, d_ins) = fused(&ins, &HIDDEN);
                assert!(outs[1].to_f64()[0].is_nan() && d_ins[0].to_f64()[0].is_nan(), "{bad} at {at}");
            }
            // It shows in no other token.
            let mut ins = inputs([1, 5, 3, VOCAB], dtype);
            ins[2].set_f64(&[1.0, 36.0, 0.0, 4.0, 2.0]);
            let clean = fused(&ins, &BOTH);
            let mut hidden = ins[0].to_f64();
            hidden[2 * 3 + 1] = bad;
            ins[0].set_f64(&hidden);
            let spoilt = fused(&ins, &BOTH);
            let others = |x: &Buffer, width: usize| [&x.to_f64()[..2 * width], &x.to_f64()[3 * width..]].concat();
            assert!(spoilt.0[1].to_f64()[2].is_nan() && spoilt.0[0].to_f64()[0].is_nan(), "{bad}");
            assert_eq!(others(&spoilt.0[1], 1), others(&clean.0[1], 1), "{bad}");
            assert_eq!(others(&spoilt.1[0], 3), others(&clean.1[0], 3), "{bad}");
        }
    }
}

/// Logits far from zero do not overflow, and the small nll of a confident model keeps its digits.
#[test]
fn large_and_sure_logits() {
    let nll = |table: &[f64]| forward(&one_token(DType::F32, table, 0.0))[1].to_f64()[0];
    assert_eq!(nll(&[3e4, -3e4]), 0.0);
    assert_eq!(nll(&[-3e4, 3e4]), 6e4);
    assert!((nll(&[5e4, 5e4]) - 2f64.ln()).abs() < 1e-7);
    let sure = nll(&[64.0, 54.0]);
    assert!((sure / (-10f64).exp().ln_1p() - 1.0).abs() < 2e-3, "{sure}");
}
