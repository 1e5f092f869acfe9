//! A list of ops and closures to measure.

use crate::call::check_against;
use crate::{Conditions, Effort, Machine, Recorder, Report, Task, serve};
use engine::{Buffer, Cost, DType, Device, Error, Op, Pass, Result, Spec, Want, parallel};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::sync::Arc;

/// A list of ops and closures to measure, on the CPU and with the tensors in f32.
///
/// A row has the identity of its case and pass, so a suite needs different names for its cases.
pub struct Suite<'a> {
    title: String,
    effort: Effort,
    items: Vec<Item<'a>>,
}

struct Item<'a> {
    task: Task,
    what: What<'a>,
}

enum What<'a> {
    /// The op, the wants of its VJP (empty for forward), the inputs.
    Op(Arc<dyn Op>, Vec<Want>, Vec<Buffer>),
    Work(Box<dyn Work + 'a>),
}

/// A closure with the state that it changes.
trait Work: Send {
    fn run(&mut self);
    /// Whether the outputs were compared with anything.
    fn check(&self) -> Result<bool>;
}

struct Closure<S, W, C> {
    state: S,
    work: W,
    check: Option<C>,
}

/// The type of the check that a closure without one lacks.
type NoCheck = fn(&()) -> std::result::Result<(), String>;

impl<S: Send, W: FnMut(&mut S) + Send, C: Fn(&S) -> std::result::Result<(), String> + Send> Work for Closure<S, W, C> {
    fn run(&mut self) {
        (self.work)(&mut self.state);
    }

    fn check(&self) -> Result<bool> {
        match &self.check {
            Some(check) => check(&self.state).map(|()| true).map_err(Error::new),
            None => Ok(false),
        }
    }
}

impl<'a> Suite<'a> {
    /// An empty suite.
    pub fn new(title: impl Into<String>, effort: Effort) -> Self {
        Self { title: title.into(), effort, items: Vec::new() }
    }

    /// Adds an op's forward pass, and the pass that computes the gradients of all inputs that have one. Before they are timed,
    /// results and gradients are compared with those of the op itself in f64, if it has f64.
    ///
    /// # Errors
    /// If the op refuses the inputs.
    pub fn op(mut self, case: &str, op: impl Op + 'static, ins: Vec<Buffer>) -> Result<Self> {
        let specs: Vec<Spec> = ins.iter().map(Buffer::spec).collect();
        engine::op::infer(&op, &specs)?;
        if let Some(other) = specs.iter().find(|spec| !matches!(spec.dtype, DType::F32 | DType::I32)) {
            return Err(Error::usage(format!(
                "{case}: an input is {other}; the peaks are those of f32, so must be the floats"
            )));
        }
        let op: Arc<dyn Op> = Arc::new(op);
        let want = |i| if op.differentiable(i) && specs[i].dtype != DType::I32 { Want::Write } else { Want::Skip };
        let wants: Vec<Want> = (0..ins.len()).map(want).collect();
        let case = format!("{}: {case}", op.name());
        let mut add = |name: &str, wants: Vec<Want>| {
            let pass = if wants.is_empty() { Pass::Forward } else { Pass::Vjp(&wants) };
            let task = Task::new(op.name(), case.as_str(), name, op.cost(&specs, pass));
            self.items.push(Item { task, what: What::Op(op.clone(), wants, ins.clone()) });
        };
        add("forward", Vec::new());
        if wants.iter().any(|want| want.is_wanted()) {
            add("backward", wants);
        }
        Ok(self)
    }

    /// Adds an op as [`op`](Self::op) does, after comparing its result with that of `reference`, an independent
    /// implementation.
    ///
    /// # Errors
    /// If the op refuses the inputs, or the results differ.
    pub fn op_against(
        self,
        case: &str,
        op: impl Op + 'static,
        ins: Vec<Buffer>,
        reference: impl Fn(&[Buffer]) -> Vec<f64>,
    ) -> Result<Self> {
        check_against(&op, &ins, &reference(&ins))?;
        self.op(case, op, ins)
    }

    /// Adds a closure that takes the given FLOPs and bytes. Give what it computes to [`std::hint::black_box`], or the compiler
    /// may remove the work; such a result is refused.
    #[must_use]
    pub fn closure(self, case: &str, cost: Cost, mut work: impl FnMut() + Send + 'a) -> Self {
        let no_check: Option<NoCheck> = None;
        self.add(case, cost, Closure { state: (), work: move |(): &mut ()| work(), check: no_check })
    }

    /// Adds a closure that computes in `state`. It is called once, and timed only if `check` finds what it computed right;
    /// `check` returns what is wrong.
    #[must_use]
    pub fn checked<S: Send + 'a>(
        self,
        case: &str,
        cost: Cost,
        state: S,
        work: impl FnMut(&mut S) + Send + 'a,
        check: impl Fn(&S) -> std::result::Result<(), String> + Send + 'a,
    ) -> Self {
        self.add(case, cost, Closure { state, work, check: Some(check) })
    }

    fn add(mut self, case: &str, cost: Cost, work: impl Work + 'a) -> Self {
        let task = Task::new("closure", case, "call", cost);
        self.items.push(Item { task, what: What::Work(Box::new(work)) });
        self
    }

    /// Checks and measures everything on the threads of the present pool of `rayon`.
    ///
    /// # Errors
    /// If two cases have one name; if outputs are wrong, an op fails or the memory does not suffice; if a result is
    /// [impossible](Report::refuse_impossible).
    pub fn run(mut self) -> Result<Report> {
        let report = parallel::in_pool(|| self.measure())?;
        report.refuse_impossible()?;
        Ok(report)
    }

    /// Measures what the program that started this one asks for: see [`in_turns`](crate::in_turns).
    ///
    /// # Errors
    /// As [`run`](Self::run); if nobody asks.
    pub fn serve(self) -> Result<()> {
        self.serve_on(BufReader::new(io::stdin()), io::stdout())
    }

    fn serve_on(mut self, input: impl BufRead + Send, output: impl Write + Send) -> Result<()> {
        parallel::in_pool(|| {
            let (mut recorder, checked) = self.begin()?;
            let report = Report::new(self.conditions(), &recorder.ceilings, Vec::new());
            let measure = |unit: usize| {
                self.items[unit].record(&mut recorder, checked[unit])?;
                let rows = recorder.take_new();
                Report { rows: rows.clone(), ..report.clone() }.refuse_impossible()?;
                Ok(rows)
            };
            serve(report.clone(), checked.len(), measure, input, output)
        })
    }

    /// FLOPs and bytes of every row, by which reports of other sizes are told apart.
    fn sizes(&self) -> String {
        let size = |item: &Item<'_>| format!("{} {} {}", item.task.case, item.task.flops, item.task.bytes);
        self.items.iter().map(size).collect::<Vec<_>>().join("; ")
    }

    fn conditions(&self) -> Conditions {
        Conditions {
            title: self.title.clone(),
            sizes: self.sizes(),
            settings: BTreeMap::new(),
            machine: Machine::of(&Device::CPU, "f32"),
        }
    }

    /// A recorder, and for every item whether its closure was checked; ops are checked when they are first recorded.
    fn begin(&mut self) -> Result<(Recorder, Vec<bool>)> {
        for (i, Item { task, .. }) in self.items.iter().enumerate() {
            if self.items[..i].iter().any(|known| known.task.key() == task.key()) {
                return Err(Error::usage(format!("two cases have the name {:?}", task.case)));
            }
        }
        let recorder = Recorder::new(&Device::CPU, DType::F32, self.effort)?;
        let checked = self.items.iter_mut().map(Item::check).collect::<Result<_>>()?;
        Ok((recorder, checked))
    }

    fn measure(&mut self) -> Result<Report> {
        let (mut recorder, checked) = self.begin()?;
        for _ in 0..self.effort.passes {
            for (item, &checked) in self.items.iter_mut().zip(&checked) {
                item.record(&mut recorder, checked)?;
            }
        }
        recorder.ceilings.measure();
        Ok(Report::new(self.conditions(), &recorder.ceilings, recorder.rows()))
    }
}

impl Item<'_> {
    fn check(&mut self) -> Result<bool> {
        match &mut self.what {
            What::Op(..) => Ok(false),
            What::Work(work) => {
                work.run();
                work.check().map_err(|e| e.at(&self.task.case))
            }
        }
    }

    fn record(&mut self, recorder: &mut Recorder, checked: bool) -> Result<()> {
        let Self { task, what } = self;
        match what {
            What::Op(op, wants, ins) => {
                let pass = if wants.is_empty() { Pass::Forward } else { Pass::Vjp(wants) };
                recorder.op(task, &**op, pass, ins)
            }
            What::Work(work) => recorder.work(task, checked, &mut || work.run()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Context, Output, with_real};
    use std::sync::{Mutex, PoisonError};

    /// y = 2x, wrong by `error` in f32; its cost counts `flops` per number.
    #[derive(Debug)]
    struct Double {
        error: f32,
        flops: u64,
    }

    impl Op for Double {
        fn name(&self) -> &'static str {
            "double"
        }
        fn arguments(&self) -> &'static [&'static str] {
            &["x"]
        }
        fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
            Ok(vec![Output { name: "y", spec: ins[0] }])
        }
        fn forward(&self, _: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
            with_real!(ins[0].dtype(), T => {
                let y = outs[0].as_mut_slice::<T>().iter_mut();
                y.zip(ins[0].as_slice::<T>()).for_each(|(y, &x)| *y = x + x);
            })
        }
        fn vjp(&self, _: &mut Context, _: &[Want], _: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
            with_real!(d_y.dtype(), T => {
                let d_x = d[0].as_mut_slice::<T>().iter_mut();
                d_x.zip(d_y.as_slice::<T>()).for_each(|(d_x, &d_y)| *d_x = d_y + d_y);
            });
            if d_y.dtype() == DType::F32 {
                d[0].as_mut_slice::<f32>()[0] += self.error;
            }
        }
        fn cost(&self, ins: &[Spec], _: Pass) -> Cost {
            let n = ins[0].shape.numel() as u64;
            Cost { flops: self.flops * n, bytes: 8 * n }
        }
    }

    /// Little effort, with times and ceilings that are roughly right.
    const EFFORT: Effort = Effort { passes: 3, seconds: 0.0, fewest: 12, sample: 1e-4, bytes: 24 << 20, product: 0 };

    /// One measurement at a time: they would slow each other.
    static ALONE: Mutex<()> = Mutex::new(());

    fn double(error: f32, flops: u64) -> Result<Report> {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let x = Buffer::from_slice(&[1 << 14], &vec![0.5f32; 1 << 14]);
        Suite::new("doubles", EFFORT).op("row", Double { error, flops }, vec![x])?.run()
    }

    #[test]
    fn an_op_is_checked_and_measured() {
        let report = double(0.0, 1).unwrap();
        let rows: Vec<_> = report.rows.iter().map(|row| (row.task.key(), row.checked)).collect();
        let (hot, cold) = (crate::Cache::Hot, crate::Cache::Cold);
        let row = |pass, cache| (("double: row", pass, cache), true);
        let all = [row("forward", hot), row("forward", cold), row("backward", hot), row("backward", cold)];
        assert_eq!(rows, all);
        assert!(report.rows.iter().all(|row| row.samples.0.len() == EFFORT.passes && row.samples.median() > 1e-7));
        assert_eq!(report.rows[1].level, crate::MEMORY);
        let again = Report::parse(report.to_json().as_bytes()).unwrap();
        assert_eq!(again.rows[0].level, report.rows[0].level);
    }

    #[test]
    fn wrong_outputs_and_costs_are_refused() {
        let wrong = double(5.0, 1).unwrap_err().to_string();
        assert!(wrong.starts_with("double: the gradient of x differs from the same op in f64 by"), "{wrong}");
        assert!(double(1e-3, 1).is_ok(), "an error within the tolerance");
        let against = |factor: f64, len: usize| {
            let x = Buffer::from_slice(&[2], &[0.5f32, -1.0]);
            let double = Double { error: 0.0, flops: 1 };
            let reference = |ins: &[Buffer]| ins[0].to_f64().iter().map(|x| factor * x).take(len).collect();
            Suite::new("doubles", EFFORT).op_against("row", double, vec![x], reference).err().map(|e| e.to_string())
        };
        assert_eq!(against(2.0, 2), None);
        let wrong =
            "double: the result differs from its reference by 3.3e-1 of its norm, more than 1e-4, so it was not timed";
        assert_eq!(against(3.0, 2).unwrap(), wrong);
        assert_eq!(against(2.0, 1).unwrap(), "double: the result has 2 numbers, its reference 1");
        let cost = double(0.0, 1_000_000).unwrap_err().to_string();
        assert!(cost.contains("double: row, forward, hot: the cost of 16.4 GFLOP cannot be"), "{cost}");
    }

    #[test]
    fn a_closure_is_measured_if_its_check_passes() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let cost = Cost { flops: 0, bytes: 1 << 14 };
        let suite = |right: u8| {
            let check = move |x: &Vec<u8>| if x[0] == right { Ok(()) } else { Err("the first is wrong".to_string()) };
            Suite::new("fills", EFFORT).checked("fill", cost, vec![0u8; 1 << 14], |x| x.fill(7), check)
        };
        assert!(suite(7).run().unwrap().rows[0].checked);
        assert_eq!(suite(8).run().unwrap_err().to_string(), "fill: the first is wrong");
        let twice = suite(7).closure("fill", cost, || ());
        assert!(twice.run().unwrap_err().to_string().contains("two cases have the name \"fill\""));
    }

    #[test]
    fn a_suite_measures_as_another_program_asks() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let x = Buffer::from_slice(&[1 << 14], &vec![0.5f32; 1 << 14]);
        let suite = Suite::new("doubles", EFFORT).op("row", Double { error: 0.0, flops: 1 }, vec![x]).unwrap();
        let mut said = Vec::new();
        suite.serve_on("1\n".as_bytes(), &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        let [_, rows] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
        let rows: Vec<crate::Row> = serde_json::from_str(rows).unwrap();
        assert!(rows.len() == 2 && rows.iter().all(|row| row.task.pass == "backward" && row.checked), "{rows:?}");
    }

    #[test]
    fn work_that_was_removed_is_refused() {
        let cost = Cost { flops: 1 << 30, bytes: 0 };
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = Suite::new("nothing", EFFORT).closure("nothing", cost, || ()).run().unwrap_err().to_string();
        assert!(refused.starts_with("nothing, call, hot: the ") && refused.contains("cannot be"), "{refused}");
    }
}
