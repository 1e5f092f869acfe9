//! Token ids to vectors, and places in a text to learned positions.

mod cpu;
pub(crate) mod cuda;

use crate::case::{Case, Fill, Input, Sizes};
use crate::{check, cost};
use engine::{Buffer, Context, Cost, DType, Device, Error, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

/// `table [V, d], tokens i32 [B, N] → h [B, N, d]`. `tokens` may lack B, and `h` does then.
///
/// - Formula: `h[b, n] = table[tokens[b, n]]`
/// - VJP: `d_table[v] = Σ d_h[b, n]` over the places of v, in their order
/// - Source: elementary
///
/// Tokens must lie in `0..V`; whoever reads data has to refuse others, on which the forward pass
/// panics, and on a GPU gives NaN. Bound by memory.
#[derive(Clone, Copy, Debug)]
pub struct Embedding;

impl Op for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["table", "tokens"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::count(self.arguments(), ins)?;
        let dtype = check::real("table", ins[0])?;
        check::rank("table", ins[0], 2)?;
        check::is("tokens", ins[1], DType::I32, ins[1].shape.dims())?;
        let dims = match *ins[1].shape.dims() {
            [n] => vec![n, ins[0].shape.last()],
            [b, n] => vec![b, n, ins[0].shape.last()],
            _ => return Err(Error::usage(format!("tokens is {}, must have 1 or 2 dimensions", ins[1]))),
        };
        Ok(vec![Output { name: "h", spec: Spec::new(dtype, &dims) }])
    }

    fn differentiable(&self, i: usize) -> bool {
        i == 0
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        if wants[0].is_wanted() { Reads::of(&[1], &[]) } else { Reads::default() }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            return cuda::forward(&**gpu, ins[0], ins[1], &mut outs[0]);
        }
        let d = ins[0].shape().last();
        with_real!(ins[0].dtype(), T => {
            cpu::forward::<T>(d, ins[0].as_slice(), ins[1].as_slice(), outs[0].as_mut_slice());
        })
    }

    fn vjp(
        &self,
        cx: &mut Context,
        wants: &[Want],
        ins: &[&Buffer],
        _outs: &[&Buffer],
        d_out: &Buffer,
        d_ins: &mut [Buffer],
    ) {
        if !wants[0].is_wanted() {
            return;
        }
        if let Device::Cuda(gpu) = cx.device {
            let numbers = cuda::scratch(ins[1].len(), d_ins[0].shape().rows());
            let memory = cx.scratch_at(DType::I32, numbers);
            return cuda::vjp(&**gpu, wants[0], ins[1], d_out, &mut d_ins[0], memory);
        }
        let d = d_out.shape().last();
        with_real!(d_out.dtype(), T => {
            cpu::vjp::<T>(d, wants[0], ins[1].as_slice(), d_out.as_slice(), d_ins[0].as_mut_slice());
        });
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        match (device, pass) {
            (Device::Cuda(_), Pass::Vjp(_)) => {
                cuda::scratch(ins[1].shape.numel(), ins[0].shape.rows()) * DType::I32.size()
            }
            _ => 0,
        }
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let (d, places) = (ins[0].shape.last(), ins[1].shape.numel());
        let bytes = places * d * ins[0].dtype.size();
        let forward = Cost { flops: 0, bytes: (ins[1].bytes() + 2 * bytes) as u64 };
        cost::of_pass(pass, forward, |wants| {
            // At the least, adding touches the table where there are tokens, each row once.
            let touched = places.min(ins[0].shape.rows()) * d * ins[0].dtype.size();
            let table = match wants[0] {
                Want::Skip => return Cost::default(),
                Want::Write => ins[0].bytes(),
                Want::Add => 2 * touched,
            };
            Cost { flops: (places * d) as u64, bytes: (ins[1].bytes() + bytes + table) as u64 }
        })
    }
}

/// One case: the decoder's input.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let table = Input::new(&[s.vocab, s.dim()], Fill::NORMAL);
    let tokens = Input::new(&[s.batch, s.tokens], Fill::Tokens { below: s.vocab });
    vec![Case::new("tokens", Embedding, vec![table, tokens])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn matches_the_formula() {
        for s in testing::sizes() {
            testing::check(&cases(&s)[0], |x| {
                let one_hot = |token: f64| (0..s.vocab).map(move |v| f64::from(v as f64 == token));
                let entry =
                    |token: f64, j: usize| one_hot(token).enumerate().map(|(v, p)| p * x[0][v * s.dim() + j]).sum();
                x[1].iter().flat_map(|&token| (0..s.dim()).map(move |j| entry(token, j))).collect()
            });
        }
    }

    /// More rows than one range of the vocabulary, so that ranges and their borders are crossed.
    #[test]
    fn scatter_adds_over_a_large_vocabulary() {
        let s = Sizes { vocab: 3 * cpu::RANGE + 5, tokens: 700, ..testing::sizes()[0] };
        let case = &cases(&s)[0];
        let buffers = case.buffers(DType::F64, 3);
        let ins: Vec<_> = buffers.iter().collect();
        let h = testing::forward(&Embedding, &ins);
        let d_table = testing::vjp(&Embedding, &[Want::Write, Want::Skip], &ins, &h, &h[0]);
        let mut counts = vec![0.0; s.vocab];
        ins[1].as_slice::<i32>().iter().for_each(|&t| counts[t as usize] += 1.0);
        let expected: Vec<_> = ins[0].to_f64().iter().enumerate().map(|(i, x)| x * counts[i / s.dim()]).collect();
        assert!(testing::distance(&d_table[0].to_f64(), &expected) < 1e-13);
        assert!(counts.contains(&0.0) && counts.iter().any(|&c| c > 1.0), "unused and repeated tokens");
    }

    #[test]
    fn tokens_are_integers_in_one_or_two_dimensions() {
        let table = Spec::new(DType::F32, &[7, 4]);
        let error = |tokens| Embedding.infer(&[table, tokens]).unwrap_err().to_string();
        assert_eq!(error(Spec::new(DType::F32, &[2, 3])), "tokens is f32[2, 3], must be i32[2, 3]");
        assert_eq!(error(Spec::new(DType::I32, &[6, 1, 1])), "tokens is i32[6, 1, 1], must have 1 or 2 dimensions");
        let h = Embedding.infer(&[table, Spec::new(DType::I32, &[6])]).unwrap();
        assert_eq!(h[0].spec, Spec::new(DType::F32, &[6, 4]));
    }
}
