//! A character-level GPT learns a text file and writes in its style: `cargo run --release --bin char_gpt -- FILE [STEPS]`.
//!
//! Four layers of causal attention and a Gaussian-error-linear-unit network, d = 128, 4 heads; batches of 16 × 256 characters.

use autograd::prelude::*;
use std::time::Instant;

const LAYERS: usize = 4;
const DIM: usize = 128;
const HEADS: usize = 4;
const BATCH: usize = 16;
const TOKENS: usize = 256;

/// `tokens [B, N] → logits [B, N, V]`. Parameters are known by their names, so several calls share them.
fn model<'t>(tape: &'t Tape, tokens: Tensor<'t>, vocab: usize) -> Tensor<'t> {
    let table = tape.parameter("embedding", &[vocab, DIM], Init::Normal(0.02));
    let places = tape.parameter("places", &[TOKENS, DIM], Init::Normal(0.02));
    let mut h = table.gather(tokens) + places;
    for layer in 0..LAYERS {
        let name = |part: &str| format!("layers.{layer}.{part}");
        let qkv = h.layernorm(&name("norm1")).dense(&name("qkv"), 3 * DIM);
        h = h + qkv.attention(HEADS, Sees::Past).dense(&name("mixed"), DIM);
        let hidden = h.layernorm(&name("norm2")).dense(&name("up"), 4 * DIM).gelu();
        h = h + hidden.dense(&name("down"), DIM);
    }
    h.layernorm("norm").dense("head", vocab)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(file) = arguments.first() else { return Err(Error::usage("usage: char_gpt FILE [STEPS]")) };
    let steps: u32 =
        arguments.get(1).map_or(Ok(300), |n| n.parse()).map_err(|e| Error::usage(format!("STEPS: {e}")))?;
    let text = std::fs::read_to_string(file).map_err(|e| Error::new(format!("{file}: {e}")))?;
    let mut alphabet: Vec<char> = text.chars().collect();
    alphabet.sort_unstable();
    alphabet.dedup();
    let code = |c: char| alphabet.binary_search(&c).expect("a character of the text") as i32;
    let codes: Vec<i32> = text.chars().map(code).collect();
    let (train, held_out) = codes.split_at(codes.len() * 9 / 10);
    if held_out.len() <= TOKENS {
        return Err(Error::usage(format!(
            "{file} has {} characters, needs more than {}",
            codes.len(),
            10 * TOKENS + 10
        )));
    }

    let tape = Tape::new(0);
    let tokens = tape.integers("tokens", &[BATCH, TOKENS]);
    let targets = tape.integers("targets", &[BATCH, TOKENS]);
    let loss = model(&tape, tokens, alphabet.len()).cross_entropy(targets);
    let optimizer = Optimizer { weight_decay: 0.1, clip: 1.0, ..Optimizer::adamw(1e-3) };
    let mut learn = tape.minimize(loss, optimizer)?;
    let mut measure = tape.compute(&[loss])?;
    let stream = Stream::new(7, 0);
    let load = |text: &[i32], step: u32| {
        let start = |row| stream.step(step).below(row as u32, text.len() - TOKENS);
        let rows = |shift| (0..BATCH).flat_map(|row| text[start(row) + shift..][..TOKENS].to_vec()).collect::<Vec<_>>();
        tape.set(tokens, &rows(0));
        tape.set(targets, &rows(1));
    };
    let begin = Instant::now();
    for step in 1..=steps {
        load(train, step);
        learn.run();
        if step % 50 == 0 || step == steps {
            let speed = f64::from(step) * (BATCH * TOKENS) as f64 / begin.elapsed().as_secs_f64();
            println!("step {step:4}  loss {:.4}  {speed:.0} tokens/s", learn.number(loss));
        }
    }
    load(held_out, 0);
    measure.run();
    println!("loss on text held out: {:.4} nats per character", measure.number(loss));

    // One text at a time, whose next character is drawn from the logits at its end.
    let window = tape.integers("window", &[1, TOKENS]);
    let logits = model(&tape, window, alphabet.len());
    let mut write = tape.compute(&[logits])?;
    let mut written: Vec<i32> = held_out[..32].to_vec();
    for i in 0..300 {
        let mut visible = written[written.len().saturating_sub(TOKENS)..].to_vec();
        let last = visible.len() - 1;
        visible.resize(TOKENS, 0);
        tape.set(window, &visible);
        write.run();
        let weights: Vec<f64> =
            write.get(logits)[last * alphabet.len()..][..alphabet.len()].iter().map(|x| x.exp()).collect();
        let mut rest = stream.step(u32::MAX).uniform(i) * weights.iter().sum::<f64>();
        let chosen = weights.iter().position(|weight| {
            rest -= weight;
            rest < 0.0
        });
        written.push(chosen.unwrap_or(alphabet.len() - 1) as i32);
    }
    println!("{}", written.iter().map(|&i| alphabet[i as usize]).collect::<String>());
    Ok(())
}
