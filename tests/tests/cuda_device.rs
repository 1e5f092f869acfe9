//! Buffers, stores and plans on a device, which the host shim stands in for.

use autograd::{Graph, Id, Phase, Plan, Request, Store, Value};
use engine::{Buffer, DType, Device, Error, Spec};
use kernels::registry::modules;
use kernels::rmsnorm::RmsNorm;
use tests::shim::{Order, Shim};

fn loaded(device: Device) -> Device {
    let Device::Cuda(gpu) = &device else { unreachable!("the shim is a GPU") };
    gpu.load(&modules()).unwrap_or_else(|e| panic!("{e}"));
    device
}

#[test]
fn buffers_move_between_host_and_device() {
    let device = Shim::device(Order::Forward);
    let numbers = [1.5, -2.0, 0.25, 8.0];
    for dtype in [DType::F32, DType::Bf16, DType::I32] {
        let host = Buffer::from_f64(dtype, &[2, 2], &numbers);
        let mut there = host.to_device(&device).expect("room");
        assert_eq!((there.to_f64(), there.spec()), (host.to_f64(), host.spec()));
        assert_eq!(there.clone().on_host().as_bytes(), host.as_bytes());
        there.set_f64(&[3.0, 4.0, 5.0, 6.0]);
        let mut back = Buffer::new(host.spec());
        back.copy_from(&there);
        assert_eq!(back.to_f64(), [3.0, 4.0, 5.0, 6.0]);
        let mut twin = Buffer::new_on(&device, host.spec()).expect("room");
        assert_eq!(twin.to_f64(), [0.0; 4]);
        twin.copy_from(&there);
        there.clear();
        assert_eq!((twin.to_f64(), there.to_f64()), (back.to_f64(), vec![0.0; 4]));
    }
    let mut there = Buffer::new_on(&device, Spec::new(DType::I32, &[3])).expect("room");
    there.write(&[7, 8, 9]);
    assert_eq!(there.to_f64(), [7.0, 8.0, 9.0]);
    drop(there);
    let Device::Cuda(gpu) = &device else { unreachable!("the shim is a GPU") };
    assert_eq!(gpu.free_bytes(), usize::MAX, "all memory was given back");
}

#[test]
#[should_panic(expected = "copy it to the host first")]
fn the_host_does_not_look_into_a_device() {
    let there = Buffer::new_on(&Shim::device(Order::Forward), Spec::new(DType::F32, &[3])).expect("room");
    there.as_slice::<f32>();
}

/// Two norms, one behind the other.
struct Model {
    store: Store,
    plan: Plan,
    x: Id,
    y: Value,
}

impl Model {
    fn new(device: Device) -> Result<Self, Error> {
        let mut store = Store::new(device);
        let x = store.alloc(Spec::new(DType::F32, &[1, 8]));
        let gains: [Id; 2] = [0.5, 2.0].map(|gain| store.insert(Buffer::from_slice(&[8], &[gain as f32; 8])));
        let mut g = Graph::new();
        let mut y = g.leaf("x", store.get(x).spec(), Phase::Step, x);
        for gain in gains {
            let gain = g.leaf("gain", store.get(gain).spec(), Phase::Update, gain);
            y = g.apply(RmsNorm { eps: 1e-5 }, &[y, gain])?;
        }
        let plan = Plan::new(&g, &mut store, &Request { keep: vec![y], ..Request::default() })?;
        Ok(Self { store, plan, x, y })
    }

    fn step(&mut self, t: usize) -> Vec<f64> {
        let x: Vec<f64> = (0..8).map(|i| ((3 * i + t) % 7) as f64 - 2.0).collect();
        self.store.get_mut(self.x).set_f64(&x);
        self.plan.run(&mut self.store, Phase::Step);
        self.store.get(self.plan.value(self.y)).to_f64()
    }
}

#[test]
fn steps_are_recorded_and_repeated() {
    let mut cpu = Model::new(Device::Cpu).expect("a plan");
    let mut gpu = Model::new(loaded(Shim::device(Order::Forward))).expect("a plan");
    gpu.store.ready().expect("room");
    for t in 0..5 {
        let (expected, got) = (cpu.step(t), gpu.step(t));
        assert!(expected.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-6), "step {t}: {got:?}");
        assert_eq!(format!("{:?}", gpu.plan).contains("Recording(2 pieces of work)"), t > 0, "step {t}");
    }
    // The buffer moves: what was recorded is not valid any more.
    let moved = gpu.store.get(gpu.x).clone();
    *gpu.store.get_mut(gpu.x) = moved;
    for t in 5..8 {
        let (expected, got) = (cpu.step(t), gpu.step(t));
        assert!(expected.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-6), "step {t}: {got:?}");
    }
}

#[test]
fn too_little_memory_is_told_before_anything_runs() {
    let model = Model::new(loaded(Shim::small(64))).expect("a plan even so");
    let error = model.store.ready().expect_err("not enough memory").to_string();
    assert_eq!(
        error,
        "164 bytes of device memory are needed, host shim has room for 64 bytes (the host shim has no room for 32 bytes)"
    );
}
