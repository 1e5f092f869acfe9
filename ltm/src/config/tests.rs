use super::*;
use engine::ErrorKind;
use std::path::PathBuf;

#[test]
fn presets_have_the_published_sizes() {
    let millions = |name: &str| {
        (parameter_count(&Config::preset(name).unwrap().resolved().unwrap().model) as f64 / 1e4).round() / 100.0
    };
    assert_eq!([millions("small"), millions("medium"), millions("large")], [38.37, 51.01, 76.28]);
    for (name, latents, steps) in [("small", 24, 16), ("medium", 24, 16), ("large", 96, 64)] {
        let config = Config::preset(name).unwrap().resolved().unwrap();
        let m = &config.model;
        assert_eq!((m.latent_count(), config.fast.steps), (latents, steps));
        assert_eq!(
            (m.dim, m.heads, m.seq, m.max_seq, m.window, m.vocab, m.ffn),
            (512, 8, 1024, 1024, 256, 50_258, 1376)
        );
    }
    for preset in PRESETS {
        let config = Config::preset(preset.name).unwrap().resolved().unwrap();
        assert!(config.check_training().is_ok() && config.losses_are_bounds(), "{}", preset.name);
        let ours = preset.name.strip_suffix("-paper");
        let (noise, posterior) = match ours {
            None => (Noise::Antithetic, Posterior::Natural),
            Some(_) => (Noise::Fresh, Posterior::Adamw),
        };
        let fast = &config.fast;
        assert_eq!((fast.noise, fast.posterior, config.slow.gradient), (noise, posterior, SlowGradient::Final));
        if let Some(ours) = ours {
            let ours = Config::preset(ours).unwrap().resolved().unwrap();
            assert_eq!((fast.init_logvar, fast.rate_end, fast.schedule), (-5.0, 0.34, Schedule::Constant));
            let slow = SlowConfig { optimizer: Optimizer::Muon, ..config.slow.clone() };
            assert_eq!(config.slow.optimizer, Optimizer::Adamw);
            assert_eq!(Config { fast: ours.fast.clone(), slow, ..config.clone() }, ours, "the same but for learning");
            assert_eq!(fast.steps, ours.fast.steps);
        }
        assert_eq!(config.resolved(), Ok(config.clone()), "resolving is idempotent");
    }
    assert_eq!(Config::preset("small").unwrap(), Config::default());
    let tiny = Config::preset("tiny").unwrap().resolved().unwrap().model;
    assert_eq!((tiny.vocab, parameter_count(&tiny)), (258, 566_400));
    let unknown = Config::preset("smal").unwrap_err();
    assert!(unknown.kind == ErrorKind::Usage && unknown.to_string().contains("did you mean \"small\"?"), "{unknown}");
}

/// Settings `key=value` on top of the defaults.
fn with(settings: &[&str]) -> Config {
    let mut config = Config::default();
    for (key, text) in settings.iter().filter_map(|setting| setting.split_once('=')) {
        config.set(key, text).unwrap();
    }
    config
}

#[test]
fn values_are_read_as_people_write_them() {
    let c = with(&[
        "fast.rate_start=4e-1",
        "fast.rate_end=.5",
        "train.seed= 12 ",
        "train.steps=1e3",
        "fast.noise=\"fixed\"",
    ]);
    assert_eq!((c.fast.rate_start, c.fast.rate_end, c.train.seed, c.train.steps), (0.4, 0.5, 12, 1000));
    assert_eq!(c.fast.noise, Noise::Fixed);
    let lists: [(&str, &[&str]); 3] =
        [("a, b.txt", &["a, b.txt"]), (r#"["a.txt", "16"]"#, &["a.txt", "16"]), ("16", &["16"])];
    for (text, paths) in lists {
        assert_eq!(
            with(&[&format!("data.paths={text}")]).data.paths,
            paths.iter().map(PathBuf::from).collect::<Vec<_>>()
        );
    }
    assert_eq!(with(&["data.validation=v.txt"]).data.validation, Some("v.txt".into()));
    assert_eq!(with(&["data.validation=v.txt", "data.validation="]).data.validation, None);
}

#[test]
fn every_setting_is_told_in_one_sentence() {
    for Setting { name, doc, .. } in SETTINGS {
        assert!(doc.ends_with('.') && !doc.contains(". "), "{name}: {doc}");
    }
}

#[test]
fn wrong_keys_and_values_say_what_would_be_right() {
    let mut c = Config::default();
    let before = c.clone();
    let cases = [
        ("fast.stps", "16", "unknown key \"fast.stps\", did you mean \"fast.steps\"?"),
        ("Window", "16", "unknown key \"Window\", did you mean \"model.window\"?"),
        ("slow_gradient", "final", "unknown key \"slow_gradient\", did you mean \"slow.gradient\"?"),
        ("steps", "5", "unknown key \"steps\", did you mean \"fast.steps\" or \"train.steps\"?"),
        ("model.steps", "5", "unknown key \"model.steps\", did you mean \"fast.steps\" or \"train.steps\"?"),
        ("fast.rate", "1", "unknown key \"fast.rate\", did you mean \"fast.rate_start\" or \"fast.rate_end\"?"),
        ("stps", "5", "unknown key \"stps\", did you mean \"fast.steps\" or \"train.steps\"?"),
        (
            "preset",
            "tiny",
            "unknown key \"preset\"; keys begin with model, fast, slow, diffusion, train, data, data.corpus",
        ),
        ("model", "ltm", "model is a section: name one of its keys, see `ltm help settings`"),
        ("train.", "5", "train is a section: name one of its keys, see `ltm help settings`"),
        ("x", "5", "unknown key \"x\"; keys begin with model, fast, slow, diffusion, train, data, data.corpus"),
        ("", "5", "unknown key \"\"; keys begin with model, fast, slow, diffusion, train, data, data.corpus"),
        ("fast.steps", "many", "fast.steps = \"many\": expected an integer of 0 or more"),
        ("fast.steps", "1.5", "fast.steps = \"1.5\": expected an integer of 0 or more"),
        ("fast.steps", "-1", "fast.steps = \"-1\": expected an integer of 0 or more"),
        ("slow.rate", "nan", "slow.rate = \"nan\": expected a finite number"),
        ("slow.rate", "", "slow.rate = \"\": expected a finite number"),
        ("fast.noise", "Fresh", "fast.noise = \"Fresh\": expected one of fresh, antithetic, fixed"),
        ("fast.posterior", "x", "fast.posterior = \"x\": expected one of adamw, natural"),
        ("slow.optimizer", "sgd", "slow.optimizer = \"sgd\": expected one of muon, adamw"),
        (
            "diffusion.schedule",
            "poly0",
            "diffusion.schedule = \"poly0\": expected linear, cosine, or poly and a power, such as poly2",
        ),
        ("data.paths", "", "data.paths = \"\": expected a path, or a list of paths such as [\"a.txt\", \"b.txt\"]"),
        ("data.paths", "[1]", "data.paths = [1]: expected a path, or a list of paths such as [\"a.txt\", \"b.txt\"]"),
    ];
    for length in [64, 130, 1000] {
        let error = c.set(&"qz".repeat(length / 2), "5").unwrap_err().to_string();
        assert!(error.ends_with("; keys begin with model, fast, slow, diffusion, train, data, data.corpus"), "{error}");
    }
    for (key, text, expected) in cases {
        let error = c.set(key, text).unwrap_err();
        assert_eq!((error.kind, error.to_string().as_str()), (ErrorKind::Usage, expected));
    }
    assert_eq!(c, before);
}

#[test]
fn files_are_strict() {
    let mut config = Config::preset("demo").unwrap();
    config.set("data.paths", r#"["a \"b\"", "é"]"#).unwrap();
    config.set("slow.rate", "0.1").unwrap();
    let text = serde_json::to_string_pretty(&config).unwrap();
    assert!(text.starts_with("{\n  \"model\": {\n    \"kind\": \"ltm\",\n    \"layers\": 2,"), "{text}");
    assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
    for (text, expected) in [
        (r#"{"modle": {"dim": 3}}"#, "unknown key \"modle.dim\", did you mean \"model.dim\"?"),
        (r#"{"dim": 3}"#, "expected a map"),
        (r#"{"model": {"dim": "3"}}"#, "model.dim = \"3\": expected an integer of 0 or more"),
        ("[]", "expected a map"),
    ] {
        let error = serde_json::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn contradictions_are_refused_in_one_line() {
    let cases: [(&[&str], &str); 19] = [
        (&["train.batch=12", "train.micro=4"], "not a power of two times train.micro = 4: use e.g. train.batch = 16"),
        (
            &["train.micro=16"],
            "train.batch = 8 is not a power of two times train.micro = 16: use e.g. train.batch = 16",
        ),
        (&["model.dim=100"], "model.dim = 100 is not divisible by model.heads = 8: use e.g. model.dim = 112"),
        (&["model.dim=24"], "/ model.heads = 3 is odd, but rotary positions need pairs: use e.g. model.dim = 32"),
        (&["model.latents=342"], "use at most 341 per layer"),
        (&["model.latents=1025", "model.max_seq=9999"], "model.latents = 1025 are more than model.seq = 1024"),
        (&["model.window=1025"], "model.window = 1025 is wider than model.seq = 1024"),
        (&["model.max_seq=1023"], "model.seq = 1024 is longer than model.max_seq = 1023"),
        (&["model.heads=0"], "model.heads = 0: must be from 1 to 32768"),
        (&["model.dim=99999999999999"], "model.dim = 99999999999999: must be from 2 to 65536"),
        (&["model.vocab=258"], "model.vocab = 258 is too small for data.tokenizer = gpt2: use at least 50258"),
        (&["model.norm_eps=0"], "model.norm_eps = 0: must be more than 0"),
        (&["train.steps=4294967296"], "train.steps = 4294967296: must be from 1 to 4294967295"),
        (&["train.keep_checkpoints=0"], "train.keep_checkpoints = 0: must be 1 or more"),
        (&["train.batch=65535", "model.seq=1025"], "67173375 tokens per step: must be at most 67108864"),
        (&["fast.rate_start=-0.1"], "fast.rate_start = -0.1: must be 0 or more"),
        (&["fast.beta2=1"], "fast.beta2 = 1: must be at least 0 and less than 1"),
        (&["slow.min_rate=1"], "slow.min_rate = 1 is above slow.rate = 0.0004"),
        (&["fast.init_logvar=31"], "fast.init_logvar = 31"),
    ];
    for (settings, expected) in cases {
        let error = with(settings).resolved().unwrap_err();
        assert!(error.to_string().contains(expected), "{error:?} does not say {expected:?}");
        assert!(error.kind == ErrorKind::Usage && !error.to_string().contains('\n'));
    }
    let train = |settings: &[&str]| with(settings).resolved().unwrap().check_training();
    let odd = train(&["fast.noise=antithetic", "fast.steps=5"]).unwrap_err();
    assert!(
        odd.kind == ErrorKind::Usage && odd.to_string().starts_with("fast.noise = antithetic needs an even"),
        "{odd}"
    );
    for settings in [["fast.noise=antithetic", "fast.steps=4"], ["fast.noise=fresh", "fast.steps=5"]] {
        assert!(train(&settings).is_ok(), "{settings:?}");
    }
    assert!(train(&["fast.noise=antithetic", "fast.steps=5", "model.kind=ar"]).is_ok());
    let nan = Config { slow: SlowConfig { rate: f64::NAN, ..SlowConfig::default() }, ..Config::default() };
    assert_eq!(nan.resolved().unwrap_err().to_string(), "slow.rate = NaN: must be 0 or more");
}

/// Also if the size of the feed-forward part is given.
#[test]
fn other_kinds_get_the_weights_of_an_ltm() {
    for (preset, ffn, most) in [("small", "0", 1.0005), ("small", "1500", 1.0005), ("demo", "0", 1.005)] {
        let mut ltm = Config::preset(preset).unwrap();
        ltm.set("model.ffn", ffn).unwrap();
        let weights = |config: &Config| parameter_count(&config.resolved().unwrap().model) as f64;
        for kind in [ModelKind::Ar, ModelKind::Mdlm, ModelKind::Sedd, ModelKind::Md4] {
            let share = weights(&ltm.of_kind(kind)) / weights(&ltm);
            assert!((1.0..most).contains(&share), "{kind} of {preset} with model.ffn = {ffn}: {share}");
        }
    }
}
