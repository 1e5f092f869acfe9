//! Buffers, stores and plans on a device.

use autograd::{Graph, Id, Phase, Plan, Request, Store, Value};
use engine::{Buffer, DType, Device, Error, Spec};
use kernels::registry::modules;
use kernels::rmsnorm::RmsNorm;
use tests::shim::{Order, Shim, gpu, loaded};

#[test]
fn buffers_move_between_host_and_device() {
    let device = Shim::device(Order::Forward);
    let numbers = [1.5, -2.0, 0.25, 8.0];
    let read = |buffer: &Buffer| buffer.read_f64().expect("a sound device");
    for dtype in [DType::F32, DType::Bf16, DType::I32] {
        let host = Buffer::from_f64(dtype, &[2, 2], &numbers);
        let mut there = host.to_device(&device).expect("room");
        assert_eq!((read(&there), there.spec()), (host.to_f64(), host.spec()));
        let again = there.to_device(&device).expect("room");
        assert_eq!(again.on_host().expect("a sound device").as_bytes(), host.as_bytes());
        there.set_f64(&[3.0, 4.0, 5.0, 6.0]);
        let mut twin = Buffer::new_on(&device, host.spec()).expect("room");
        assert_eq!(read(&twin), [0.0; 4]);
        twin.copy_from(&there);
        there.clear();
        assert_eq!((read(&twin), read(&there)), (vec![3.0, 4.0, 5.0, 6.0], vec![0.0; 4]));
    }
    let mut there = Buffer::new_on(&device, Spec::new(DType::I32, &[3])).expect("room");
    there.write(&[7, 8, 9]);
    assert_eq!(read(&there), [7.0, 8.0, 9.0]);
    drop(there);
    assert_eq!(gpu(&device).free_bytes(), usize::MAX, "all memory was given back");
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
        let mut y = g.leaf("x", Phase::Step, x);
        for gain in gains {
            let gain = g.leaf("gain", Phase::Update, gain);
            y = g.apply(RmsNorm { eps: 1e-5 }, &[y, gain])?;
        }
        let plan = Plan::new(&g, &mut store, &Request { keep: vec![y], ..Request::default() })?;
        Ok(Self { store, plan, x, y })
    }

    fn step(&mut self, t: usize) -> Vec<f64> {
        let x: Vec<f64> = (0..8).map(|i| ((3 * i + t) % 7) as f64 - 2.0).collect();
        self.store.get_mut(self.x).set_f64(&x);
        self.plan.run(&mut self.store, Phase::Step);
        self.store.get(self.plan.value(self.y)).read_f64().expect("a sound device")
    }
}

fn shim(device: Device) -> Device {
    loaded(device, &modules())
}

#[test]
fn steps_are_recorded_and_repeated() {
    let mut cpu = Model::new(Device::Cpu).expect("a plan");
    let mut gpu = Model::new(shim(Shim::device(Order::Forward))).expect("a plan");
    gpu.store.ready().expect("room");
    for t in 0..8 {
        if t == 5 {
            // The buffer moves, which makes the recording invalid.
            let device = gpu.store.device().clone();
            let moved = gpu.store.get(gpu.x).to_device(&device).expect("room");
            *gpu.store.get_mut(gpu.x) = moved;
        }
        let (expected, got) = (cpu.step(t), gpu.step(t));
        assert!(expected.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-6), "step {t}: {got:?}");
        let is_recorded = format!("{:?}", gpu.plan).contains("Recording(2 pieces of work)");
        assert_eq!(is_recorded, t > 0 && t != 5, "step {t}");
    }
}

#[test]
fn too_little_memory_is_told_before_anything_runs() {
    let model = Model::new(shim(Shim::small(64))).expect("a plan even so");
    let error = model.store.ready().expect_err("not enough memory").to_string();
    assert_eq!(
        error,
        "164 bytes of device memory are needed, host shim has room for 64 bytes (the host shim has no room for 32 bytes)"
    );
}
