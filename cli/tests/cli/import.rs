//! GPT-2's weights in Hugging Face's format: import, evaluate, generate.

use super::*;

/// A lab with the tiny GPT-2 in `gpt2/`.
fn lab() -> Lab {
    let lab = Lab::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/gpt2");
    fs::create_dir(lab.path("gpt2")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        lab.write(&format!("gpt2/{name}"), fs::read(fixtures.join(name)).unwrap());
    }
    lab
}

#[test]
fn imported_weights_are_judged_and_generate() {
    let lab = lab();
    let import = "import gpt2 gpt2 --out run --tokenizer bytes";
    lab.ltm(import).succeeds().says("2 layers of width 8, 2 heads, 12 positions | run");
    lab.ltm("eval run --data text.txt --limit 20").succeeds().says("nll | exact | prefix | 20 sequences");

    // One token comes first, and the last drawn one is not read: 12 positions fit a prompt of 5 and 7 more tokens.
    let generate = || lab.ltm("generate run --prompt GPT-2 --tokens 7 --seed 3").succeeds();
    let said = generate();
    assert!(said.out.starts_with("GPT-2") && said.out.len() > "GPT-2\n".len(), "{}", said.context());
    assert_eq!(generate().out, said.out);
    lab.ltm("generate run --unconditional --tokens 5").succeeds();
    let cases = [
        (import, "run already has a run"),
        ("eval run", "run was imported and has no validation text | --data"),
        ("eval run --data text.txt --protocol elbo", "elbo | gpt2 | nll"),
        ("train --resume run", "run was imported"),
        (
            "generate run --prompt GPT-2 --tokens 8",
            "6 tokens and 8 more make up to 13 positions, the model has 12 | draw fewer tokens",
        ),
        ("generate run --prompt a-prompt-of-many-words --tokens 1", "the model has 12 | shorten the prompt"),
    ];
    lab.refuses(2, &cases);
    // It cannot be trained further, so nothing says that it can.
    let again = lab.ltm(import);
    again.fails(2, &["name another folder"]);
    assert!(!again.err.contains("--resume"), "{}", again.context());
}

#[test]
fn what_cannot_be_imported_leaves_nothing_behind() {
    let lab = lab();
    let unfit = "gpt2/config.json | vocab_size = 258 | tokenizer gpt2-plain | 50257 ids | --tokenizer";
    lab.refuses(1, &[("import gpt2 gpt2 --out run", unfit)]);
    lab.refuses(2, &[("import gpt2 gpt2 --out run --tokenizer gpt5", "gpt5 | gpt2-plain")]);
    let import = "import gpt2 gpt2 --out run --tokenizer bytes";
    lab.change("gpt2/model.safetensors", |bytes| _ = bytes.pop());
    lab.refuses(1, &[(import, "gpt2/model.safetensors")]);
    for name in ["gpt2/model.safetensors", "gpt2/config.json"] {
        fs::remove_file(lab.path(name)).unwrap();
        lab.refuses(1, &[(import, &format!("gpt2 has no {}", &name[5..]))]);
    }
    assert!(!lab.path("run").exists());
}

/// Models that infer no latents, through every command that takes a run or a configuration.
#[test]
fn the_baselines_plan_train_and_generate() {
    let lab = Lab::new();
    let set = TINY.join(" ");
    for (kind, latents) in [("ar", "no"), ("ar-latent", "2 learned"), ("gpt2", "no")] {
        let plan = lab.ltm(&format!("plan --preset tiny --ops --model {kind} --set {set}")).succeeds();
        plan.says(&format!("{latents} latents | training FLOP per token"));
        lab.ltm(&format!("train --data text.txt --out {kind} --model {kind} --set {set}")).succeeds();
        lab.ltm(&format!("eval {kind}")).succeeds().says("exact");
        let generate = || lab.run(&["generate", kind, "--prompt", "3 green", "--tokens", "9"]).succeeds();
        let said = generate();
        assert!(said.out.starts_with("3 green") && said.out.len() > "3 green\n".len(), "{}", said.context());
        assert_eq!(generate().out, said.out);
        lab.ltm(&format!("generate {kind} --unconditional --tokens 5 --temperature 0")).succeeds();
    }
    // Rotary positions are unlimited, learned ones are not.
    lab.ltm("generate ar --prompt green --tokens 60").succeeds().says("note: ");
    lab.refuses(2, &[("generate gpt2 --prompt green --tokens 60", "the model has 32")]);
}
