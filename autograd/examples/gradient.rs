//! Records a small graph, plans it, takes a gradient and checks it against central differences.

use autograd::gradcheck::{Options, check_graph};
use autograd::{Graph, Phase, Plan, Request, Store};
use engine::{Buffer, Device};
use kernels::{gelu::Gelu, matmul::Linear, sum::Sum};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut store = Store::new(Device::CPU);
    let mut graph = Graph::new();
    let x = store.insert(Buffer::from_slice(&[2, 3], &[0.1, -0.2, 0.3, 0.4, 0.5, -0.6]));
    let w = store.insert(Buffer::from_slice(&[1, 3], &[1.0, -2.0, 0.5]));
    let x = graph.leaf("x", Phase::Batch, x);
    let w = graph.leaf("w", Phase::Update, w);
    let y = graph.apply(Linear, &[x, w])?;
    let y = graph.apply(Gelu, &[y])?;
    let loss = graph.apply(Sum, &[y])?;
    let request = Request { root: Some(loss), wants: vec![w], ..Request::default() };
    let plan = Plan::new(&graph, &mut store, &request)?;
    plan.run_all(&mut store);
    println!("gradient: {:?}", store.get(plan.grad(w)).to_f64());
    println!("{}", check_graph(&graph, &mut store, loss, &[w], &Options::default())?);
    Ok(())
}
