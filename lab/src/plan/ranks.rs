//! What a step costs each of several processes: FLOPs, bytes sent, and the time of both.

use super::Plans;
use crate::table::{Table, digits, number, si};

/// The largest share of its time that a process may reasonably spend on communication.
const SHARE: f64 = 0.1;

/// How fast a process is.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Tokens per second of one process that trains alone.
    pub tokens: f64,
    /// Bytes per second that a process sends, while it receives as many.
    pub bytes: f64,
}

/// A step of one of `ranks` processes that share a batch.
#[derive(Clone, Debug, PartialEq)]
struct Turn {
    ranks: usize,
    samples: usize,
    flops: f64,
    sent: f64,
    /// Seconds of computing and of communication, one after the other, if the rates are known.
    seconds: Option<[f64; 2]>,
}

impl Turn {
    /// The share of its time that a process spends on communication.
    fn share(&self) -> Option<f64> {
        self.seconds.map(|[computing, sending]| sending / (computing + sending))
    }
}

impl Plans {
    /// A step by one process, by two, by four, and so on to the most that can share a batch.
    fn turns(&self, rates: Option<Rates>) -> Vec<Turn> {
        let (train, gradient) = (&self.config.train, (self.learner.params.count() * size_of::<f32>()) as f64);
        let tokens = (train.batch * self.config.model.seq) as f64;
        let turn = |ranks| {
            let (flops, others) = (self.flops(ranks), (ranks - 1) as f64 / ranks as f64);
            // The sum over processes halves what each has, and comes back the same way: `Collective::sum`.
            let sent = 2.0 * others * gradient * self.config.slow.updates as f64;
            let seconds = rates.map(|rates| [tokens / rates.tokens * flops / self.flops(1), sent / rates.bytes]);
            Turn { ranks, samples: train.batch / ranks, flops, sent, seconds }
        };
        std::iter::successors(Some(1), |ranks| Some(2 * ranks)).take_while(|&r| r <= train.parts()).map(turn).collect()
    }

    /// A table of what a step costs each of several processes, and how many are sensible. With `rates` it has the time.
    pub fn processes(&self, rates: Option<Rates>) -> String {
        let (turns, train) = (self.turns(rates), &self.config.train);
        let mut table = Table::of(&turns)
            .right("processes", |turn| turn.ranks)
            .right("samples each", |turn| turn.samples)
            .right("FLOP each", |turn| si(turn.flops, ""))
            .right("sent by each", |turn| si(turn.sent, "B"));
        let mut most = format!(
            "at most {} processes can share train.batch = {} in parts of {} (train.micro)",
            train.parts(),
            train.batch,
            train.rows()
        );
        if let Some(Rates { tokens, bytes }) = rates {
            let seconds = |turn: &Turn, i: usize| format!("{} s", number(turn.seconds.map_or(f64::NAN, |s| s[i])));
            let share = |turn: &Turn| turn.share().unwrap_or(f64::NAN);
            table = table
                .right("computing", |turn| seconds(turn, 0))
                .right("communication", |turn| seconds(turn, 1))
                .right("share of the time", |turn| format!("{} %", digits(100.0 * share(turn), 1)));
            let sensible = turns.iter().rfind(|turn| share(turn) <= SHARE).map_or(1, |turn| turn.ranks);
            most = format!(
                "{most}; up to {sensible} spend at most {:.0} % of their time on communication.\nAssumed: one process alone trains \
                 {} tokens/s, time is in proportion to FLOPs, and each sends {}B/s and\nreceives as much while nothing is computed",
                100.0 * SHARE,
                number(tokens),
                number(bytes)
            );
        }
        format!("{table}\n{most}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Device;
    use ltm::config::Config;

    fn planned(settings: &str, ranks: usize) -> Plans {
        let mut config = Config::preset("small").unwrap();
        config.set_all(settings).unwrap();
        Plans::among(&config.resolved().unwrap(), &Device::CPU, ranks).unwrap()
    }

    /// 38,369,280 weights in f32 are 153,477,120 bytes; one process alone takes 256 · 1024 / 152,300 = 1.72123 s.
    #[test]
    fn a_step_costs_each_process_what_arithmetic_says() {
        let plans = planned("train.batch=256 train.micro=32 slow.updates=1", 1);
        let update = plans.parts(1).last().unwrap().cost_in_step().flops as f64;
        let turns = plans.turns(Some(Rates { tokens: 152_300.0, bytes: 3.125e9 }));
        let near = |found: f64, by_hand: f64| (found / by_hand - 1.0).abs() < 1e-5 || found == by_hand;
        for (turn, (ranks, samples, sent, seconds)) in turns.iter().zip([
            (1, 256, 0.0, 0.0),
            (2, 128, 153_477_120.0, 0.049_112_7),
            (4, 64, 230_215_680.0, 0.073_669_0),
            (8, 32, 268_584_960.0, 0.085_947_2),
        ]) {
            assert_eq!((turn.ranks, turn.samples, turn.sent), (ranks, samples, sent));
            // All apply the whole update.
            let flops = (turns[0].flops - update) / ranks as f64 + update;
            assert!(near(turn.flops, flops), "{turn:?}");
            let [computing, sending] = turn.seconds.unwrap();
            assert!(near(computing, 1.721_230 * flops / turns[0].flops) && near(sending, seconds), "{turn:?}");
        }
        assert_eq!(turns.len(), 4);
        // 1 / 20, and 74 of 504 milliseconds.
        let percent: Vec<f64> = turns.iter().map(|turn| (1000.0 * turn.share().unwrap()).round() / 10.0).collect();
        assert_eq!(percent, [0.0, 5.4, 14.6, 28.5]);
        let text = plans.processes(Some(Rates { tokens: 152_300.0, bytes: 3.125e9 }));
        assert!(text.contains("at most 8 processes") && text.contains("up to 2 spend at most 10 %"), "{text}");
        let twice = planned("train.batch=256 train.micro=32 slow.updates=2", 1).turns(None);
        assert_eq!((twice[3].sent, twice[3].seconds), (2.0 * 268_584_960.0, None));
    }

    /// A gradient waits at every level of the tree below the processes: log₂ of the parts that each computes.
    #[test]
    fn fewer_gradients_wait_where_more_processes_share() {
        for (ranks, waiting) in [(1, 3), (2, 2), (4, 1), (8, 0)] {
            let plans = planned("train.batch=8 train.micro=1", ranks);
            assert_eq!(plans.learner.bytes[3], waiting * 153_477_120, "{ranks}");
            // Half of the embedding, 50,258 · 512 numbers.
            let exchange = plans.memory().contains("received gradients             51.46 MB");
            assert_eq!(exchange, ranks > 1, "{}", plans.memory());
        }
    }
}
