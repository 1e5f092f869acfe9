//! Buffers, stores and plans on a device.

use autograd::{Graph, Id, Phase, Plan, Request, Store, Value};
use engine::{Buffer, DType, Device, Spec};
use kernels::registry::modules;
use kernels::rmsnorm::RmsNorm;
use tests::shim::{Order, Shim, loaded};

/// Two norms, one after the other.
struct Model {
    store: Store,
    plan: Plan,
    x: Id,
    y: Value,
}

impl Model {
    fn new(device: Device) -> Self {
        let mut store = Store::new(device);
        let x = store.alloc(Spec::new(DType::F32, &[1, 8]));
        let gains: [Id; 2] = [0.5, 2.0].map(|gain| store.insert(Buffer::from_slice(&[8], &[gain as f32; 8])));
        let mut g = Graph::new();
        let mut y = g.leaf("x", Phase::Step, x);
        for gain in gains {
            let gain = g.leaf("gain", Phase::Update, gain);
            y = g.apply(RmsNorm { eps: 1e-5 }, &[y, gain]).expect("shapes that fit");
        }
        let request = Request { keep: vec![y], ..Request::default() };
        let plan = Plan::new(&g, &mut store, &request).expect("a plan");
        store.ready().expect("room");
        Self { store, plan, x, y }
    }

    fn step(&mut self, t: usize) -> Vec<f64> {
        let x: Vec<f64> = (0..8).map(|i| ((3 * i + t) % 7) as f64 - 2.0).collect();
        self.store.get_mut(self.x).set_f64(&x);
        self.plan.run(&mut self.store, Phase::Step);
        self.store.get(self.plan.value(self.y)).read_f64().expect("a sound device")
    }
}

#[test]
fn steps_are_recorded_and_repeated() {
    let mut cpu = Model::new(Device::CPU);
    let mut gpu = Model::new(loaded(Shim::device(Order::Forward), &modules()));
    for t in 0..8 {
        if t == 5 {
            // The buffer gets a new address, which makes the recording invalid.
            let device = gpu.store.device.clone();
            let moved = gpu.store.get(gpu.x).to_device(&device).expect("room");
            *gpu.store.get_mut(gpu.x) = moved;
        }
        let (expected, got) = (cpu.step(t), gpu.step(t));
        assert!(expected.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-6), "step {t}: {got:?}");
        let is_recorded = format!("{:?}", gpu.plan).contains("Recording(2 pieces of work)");
        assert_eq!(is_recorded, t > 0 && t != 5, "step {t}");
    }
}
