//! Where faults are asked for: each part of an agent passes every request by its [`Control`].
//!
//! A request can fail before it reached the real part, be carried out without its answer coming back, be carried out
//! twice, wait at a gate before or after it was carried out, or arrive only when the agent is long dead.

use std::sync::{Mutex, MutexGuard};

use futures::future::BoxFuture;
use tokio::sync::watch;

/// What is asked of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The object store.
    Put,
    Get,
    Delete,
    List,
    /// The running log: a frame on its way in, and its durability on its way back.
    Submit,
    Commit,
    Trim,
    Close,
    /// The logs as a recovery sees them.
    Create,
    Seal,
    Replay,
    Remove,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It never arrives.
    Fail,
    /// It is carried out, and the answer is an error.
    LoseAnswer,
    /// It arrives twice; the second answer is the one that comes back.
    Twice,
    /// It waits before it is carried out.
    Hold,
    /// It was carried out; the answer waits.
    HoldAnswer,
    /// It arrives when [`Control::deliver`] says so, and nobody hears the answer.
    Late,
}

/// One fault that is to happen.
#[derive(Clone, Debug)]
struct Rule {
    point: Point,
    /// A part of the object's key, or of the log's id.
    name_part: String,
    fault: Fault,
    left: usize,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    late: Vec<BoxFuture<'static, ()>>,
    /// Every request that came by, in order.
    seen: Vec<(Point, String)>,
}

/// What the parts of one agent share with the test.
pub struct Control {
    state: Mutex<State>,
    /// How many requests met a fault or a gate so far.
    met: watch::Sender<usize>,
    gate_open: watch::Sender<bool>,
    dead: watch::Sender<bool>,
}

impl Default for Control {
    fn default() -> Control {
        Control {
            state: Mutex::default(),
            met: watch::Sender::new(0),
            gate_open: watch::Sender::new(false),
            dead: watch::Sender::new(false),
        }
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    /// The next `times` requests at `point` whose name has `name_part` in it meet `fault`.
    pub fn ask(&self, point: Point, name_part: &str, fault: Fault, times: usize) {
        self.state().rules.push(Rule {
            point,
            name_part: name_part.to_owned(),
            fault,
            left: times,
        });
    }

    /// From now on nothing meets a fault any more, and the gate is open.
    pub fn heal(&self) {
        self.state().rules.clear();
        self.open_gate();
    }

    /// From now on nothing waits at the gate; other faults still happen.
    pub fn open_gate(&self) {
        self.gate_open.send_replace(true);
    }

    /// From now on everything fails, and nothing reaches the real parts: the agent is dead.
    pub fn kill(&self) {
        self.dead.send_replace(true);
    }

    /// Requests that met a fault or a gate so far.
    pub fn met(&self) -> usize {
        *self.met.borrow()
    }

    /// Waits until so many requests met a fault or a gate.
    pub async fn wait_met(&self, count: usize) {
        let mut met = self.met.subscribe();
        met.wait_for(|met| *met >= count).await.expect("the control is here");
    }

    /// Carries out what was on its way when the agent died.
    pub async fn deliver(&self) -> usize {
        let late = std::mem::take(&mut self.state().late);
        let count = late.len();
        for request in late {
            request.await;
        }
        count
    }

    /// Names of the requests at `point` so far.
    pub fn seen(&self, point: Point) -> Vec<String> {
        let state = self.state();
        let seen = state.seen.iter().filter(|(at, _)| *at == point);
        seen.map(|(_, name)| name.clone()).collect()
    }

    /// Passes a request on, or lets it meet what was asked for. `request` carries it out, `error` is the answer of a
    /// part that broke.
    pub async fn pass<T, E>(
        &self,
        point: Point,
        name: &str,
        request: impl Fn() -> BoxFuture<'static, Result<T, E>>,
        error: impl Fn() -> E,
    ) -> Result<T, E>
    where
        T: 'static,
        E: 'static,
    {
        if *self.dead.borrow() {
            return Err(error());
        }
        match self.next_fault(point, name) {
            None => request().await,
            Some(Fault::Fail) => Err(error()),
            Some(Fault::LoseAnswer) => {
                // What the real part refuses is no lost success.
                request().await?;
                Err(error())
            }
            Some(Fault::Twice) => {
                let _ = request().await;
                request().await
            }
            Some(Fault::Hold) => {
                self.wait_at_gate().await.map_err(|()| error())?;
                request().await
            }
            Some(Fault::HoldAnswer) => {
                let answer = request().await;
                self.wait_at_gate().await.map_err(|()| error())?;
                answer
            }
            Some(Fault::Late) => {
                let arrives = request();
                self.state().late.push(Box::pin(async move {
                    let _ = arrives.await;
                }));
                self.meet();
                let mut dead = self.dead.subscribe();
                dead.wait_for(|dead| *dead).await.expect("the control is here");
                Err(error())
            }
        }
    }

    fn next_fault(&self, point: Point, name: &str) -> Option<Fault> {
        let fault = {
            let mut state = self.state();
            state.seen.push((point, name.to_owned()));
            let rule = state
                .rules
                .iter_mut()
                .find(|rule| rule.left > 0 && rule.point == point && name.contains(&rule.name_part))?;
            rule.left -= 1;
            rule.fault
        };
        if !matches!(fault, Fault::Hold | Fault::HoldAnswer | Fault::Late) {
            self.meet();
        }
        Some(fault)
    }

    /// Ends with an error where the agent died meanwhile.
    async fn wait_at_gate(&self) -> Result<(), ()> {
        let (mut open, mut dead) = (self.gate_open.subscribe(), self.dead.subscribe());
        self.meet();
        tokio::select! {
            biased;
            _ = dead.wait_for(|dead| *dead) => Err(()),
            _ = open.wait_for(|open| *open) => Ok(()),
        }
    }

    fn meet(&self) {
        self.met.send_modify(|met| *met += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}
