//! GPT-2's weights from Hugging Face's layout: import, judge, generate.

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/gpt2").join(name)
}

/// A lab with the tiny GPT-2 in `gpt2/`.
fn lab() -> Lab {
    let lab = Lab::new();
    fs::create_dir(lab.path("gpt2")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        lab.write(&format!("gpt2/{name}"), fs::read(fixture(name)).unwrap());
    }
    lab
}

#[test]
fn imported_weights_are_judged_and_generate() {
    let lab = lab();
    let import = &["import", "gpt2", "gpt2", "--out", "run", "--tokenizer", "bytes"];
    lab.run(import).succeeds().says("2 layers of width 8, 2 heads, 12 positions").says("run");
    lab.run(import).fails(2, &["run already holds a run"]);

    let eval = lab.run(&["eval", "run", "--data", "text.txt", "--limit", "20"]).succeeds();
    eval.says("nll").says("exact").says("prefix").says("20 sequences");
    lab.run(&["eval", "run"]).fails(2, &["run was imported and has no validation text", "--data"]);
    lab.run(&["eval", "run", "--data", "text.txt", "--protocol", "elbo"]).fails(2, &["elbo", "gpt2", "nll"]);
    lab.run(&["train", "--resume", "run"]).fails(2, &["run was imported"]);

    // One token stands in front, the last one drawn is not read: 12 positions take a prompt of 5 and 7 tokens more.
    let generate = |prompt: &str, tokens: &str| {
        lab.run(&["generate", "run", "--prompt", prompt, "--tokens", tokens, "--seed", "3"])
    };
    let said = generate("GPT-2", "7").succeeds();
    assert!(said.out.starts_with("GPT-2") && said.out.len() > "GPT-2\n".len(), "{}", said.context());
    assert_eq!(generate("GPT-2", "7").out, said.out);
    generate("GPT-2", "8")
        .fails(2, &["6 tokens and 8 more make up to 13 positions, the model has 12", "draw fewer tokens"]);
    generate("a prompt of many words", "1").fails(2, &["the model has 12", "shorten the prompt"]);
    lab.run(&["generate", "run", "--unconditional", "--tokens", "5"]).succeeds();
}

#[test]
fn what_cannot_be_imported_leaves_nothing_behind() {
    let lab = lab();
    let import = |more: &[&str]| lab.run(&[&["import", "gpt2", "gpt2", "--out", "run"], more].concat());
    import(&[]).fails(1, &["gpt2/config.json", "vocab_size = 258", "tokenizer gpt2-plain", "50257 ids", "--tokenizer"]);
    import(&["--tokenizer", "gpt5"]).fails(2, &["gpt5", "gpt2-plain"]);
    let weights = fs::read(fixture("model.safetensors")).unwrap();
    lab.write("gpt2/model.safetensors", &weights[..weights.len() - 1]);
    import(&["--tokenizer", "bytes"]).fails(1, &["gpt2/model.safetensors"]);
    fs::remove_file(lab.path("gpt2/model.safetensors")).unwrap();
    import(&["--tokenizer", "bytes"]).fails(1, &["cannot read gpt2/model.safetensors"]);
    fs::remove_file(lab.path("gpt2/config.json")).unwrap();
    import(&["--tokenizer", "bytes"]).fails(1, &["cannot read gpt2/config.json"]);
    assert!(!lab.path("run").exists());
}

/// The baseline without latents, through every command that takes a run or a configuration.
#[test]
fn the_baseline_plans_trains_and_generates() {
    let lab = Lab::new();
    for kind in ["ar", "gpt2"] {
        lab.run(&[&["plan", "--preset", "tiny", "--ops", "--model", kind, "--set"], TINY].concat())
            .succeeds()
            .says("no latents")
            .says("training FLOP per token");
        lab.run(&[&["train", "--data", "text.txt", "--out", kind, "--model", kind, "--set"], TINY].concat()).succeeds();
        lab.run(&["eval", kind]).succeeds().says("exact");
        let generate = ["generate", kind, "--prompt", "3 green", "--tokens", "9"];
        let said = lab.run(&generate).succeeds();
        assert!(said.out.starts_with("3 green") && said.out.len() > "3 green\n".len(), "{}", said.context());
        assert_eq!(lab.run(&generate).out, said.out);
        lab.run(&["generate", kind, "--unconditional", "--tokens", "5", "--temperature", "0"]).succeeds();
    }
    // Rotary positions have no end, learned ones do.
    lab.run(&["generate", "ar", "--prompt", "3 green", "--tokens", "60"]).succeeds().says("note: ");
    lab.run(&["generate", "gpt2", "--prompt", "3 green", "--tokens", "60"]).fails(2, &["the model has 32"]);
}
