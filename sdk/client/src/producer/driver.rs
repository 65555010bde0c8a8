//! The task behind a producer: it decides what is sent when, and what becomes of the answers.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use millstream_proto::v1;
use tokio::time::Instant;

use super::{
    fan::{Fan, Routes},
    lane::{FullBatch, Lane, SealedBatch},
    link::News,
    retry::{Remedy, remedy},
    state::{Shared, State},
    wire::Request,
};
use crate::{ClientError, Connection};

/// Pauses before the agent is called again: each twice the one before.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Sequences go from 0 to this, and then begin again.
const SEQUENCE_END: i64 = 1 << 31;

/// Who an idempotent producer is.
#[derive(Clone, Copy, Debug)]
struct Identity {
    id: i64,
    epoch: i16,
}

pub(super) struct Driver {
    connection: Connection,
    shared: Arc<Shared>,
    link: Option<Box<Fan>>,
    routes: Routes,
    opening: Option<BoxFuture<'static, Result<Box<Fan>, ClientError>>>,
    identity: Option<Identity>,
    naming: Option<BoxFuture<'static, Result<Identity, ClientError>>>,
    /// The sequence of some partition has a gap: a greater epoch is needed before anything new is sent.
    epoch_due: bool,
    /// Batches that have a number and no answer for good.
    numbered: usize,
    /// Something waits to be sent, and there is no call to send it over.
    link_wanted: bool,
    /// No call is opened before.
    paused_until: Option<Instant>,
    pause: Duration,
    /// Since when no call gets through.
    down_since: Option<Instant>,
}

enum Event {
    News(News),
    Opened(Result<Box<Fan>, ClientError>),
    Named(Result<Identity, ClientError>),
    Due,
}

impl Driver {
    pub(super) fn new(connection: Connection, shared: Arc<Shared>) -> Driver {
        Driver {
            connection,
            shared,
            link: None,
            routes: Routes::default(),
            opening: None,
            identity: None,
            naming: None,
            epoch_due: false,
            numbered: 0,
            link_wanted: false,
            paused_until: None,
            pause: Duration::ZERO,
            down_since: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let next = self.dispatch();
            match self.next_event(next).await {
                Event::News(News::Answered(partition, result)) => self.on_answer(partition, result),
                Event::News(News::Lost(partition, error)) => self.on_lost(partition, error),
                // What comes of it is told request by request.
                Event::News(News::Ended(_)) => {}
                Event::Opened(Ok(link)) => {
                    self.link = Some(link);
                    self.got_through();
                }
                Event::Named(Ok(identity)) => self.on_named(identity),
                Event::Opened(Err(error)) | Event::Named(Err(error)) => self.on_unreachable(&error),
                Event::Due => {}
            }
        }
    }

    async fn next_event(&mut self, next: Option<Instant>) -> Event {
        let wake = self.shared.wake.notified();
        tokio::select! {
            biased;
            news = async {
                match &mut self.link {
                    Some(link) => link.news().await,
                    None => std::future::pending().await,
                }
            } => Event::News(news),
            opened = pending(&mut self.opening) => {
                self.opening = None;
                Event::Opened(opened)
            }
            named = pending(&mut self.naming) => {
                self.naming = None;
                Event::Named(named)
            }
            () = wake => Event::Due,
            () = sleep_until(next) => Event::Due,
        }
    }

    /// Sends what can be sent; when to look again without any other reason.
    fn dispatch(&mut self) -> Option<Instant> {
        let (shared, now) = (self.shared.clone(), Instant::now());
        let mut state = shared.state();
        while let Some((at, partition)) = state.timers.first().copied()
            && at <= now
        {
            state.timers.pop_first();
            state.mark_due(partition);
        }
        if shared.is_pressed() && !shared.settings.linger.is_zero() {
            state.mark_all_due();
        }
        if let Some(error) = state.ended.clone() {
            self.give_up(&mut state, &error);
        }
        while let Some(partition) = state.due.pop_front() {
            if let Some(lane) = state.lanes.get_mut(&partition) {
                lane.is_due = false;
            }
            while let Some(batch) = self.next_batch(&mut state, partition, now) {
                self.send(&mut state, partition, batch);
            }
        }
        if self
            .link
            .as_ref()
            .is_some_and(|link| link.is_draining && link.is_idle())
        {
            self.link = None;
            state.mark_all_due();
            self.link_wanted |= !state.due.is_empty();
        }
        self.connect(now);
        let timer = state.timers.first().map(|(at, _)| *at);
        timer
            .into_iter()
            .chain(self.paused_until.filter(|until| *until > now))
            .min()
    }

    /// The batch of a lane that is sent now; sees to it that the lane is looked at again where it has to be.
    fn next_batch(&mut self, state: &mut State, partition: u32, now: Instant) -> Option<SealedBatch> {
        let shared = self.shared.clone();
        let settings = &shared.settings;
        let lane = state.lanes.get_mut(&partition)?;
        if let Some(until) = lane.paused_until {
            if until > now {
                state.timers.insert((until, partition));
                return None;
            }
            lane.paused_until = None;
        }
        if lane.under_way.len() >= settings.in_flight() {
            return None;
        }
        if let Some(open) = lane
            .open
            .as_ref()
            .filter(|_| lane.again.is_empty() && lane.full.is_empty())
        {
            let due = open.began + settings.linger;
            if due > now && !shared.is_pressed() {
                state.timers.insert((due, partition));
                return None;
            }
        }
        if lane.again.is_empty() && lane.full.is_empty() && lane.open.is_none() {
            return None;
        }
        if self.link.as_ref().is_none_or(|link| link.is_draining) {
            self.link_wanted = true;
            return None;
        }
        // Only what has its number may go while a greater epoch is needed.
        let may_number = !self.epoch_due && (!settings.idempotent || self.identity.is_some());
        if let Some(first) = lane.again.front() {
            return match may_number || first.sequence.is_some() {
                true => lane.again.pop_front(),
                false => None,
            };
        }
        if !may_number {
            return None;
        }
        if lane.full.is_empty() && lane.close_open() {
            state.partitioner.batch_sealed(partition);
        }
        let full = lane.full.pop_front();
        full.map(|full: FullBatch| full.seal(settings.compression))
    }

    fn send(&mut self, state: &mut State, partition: u32, mut batch: SealedBatch) {
        let lane = state.lanes.get_mut(&partition).expect("the batch came from there");
        if let (Some(identity), None) = (self.identity, batch.sequence) {
            batch.number(identity.id, identity.epoch, lane.next_sequence);
            let next = (i64::from(lane.next_sequence) + i64::from(batch.record_count)) % SEQUENCE_END;
            lane.next_sequence = next as i32;
            self.numbered += 1;
        }
        let request = Request {
            topic: self.shared.topic.clone(),
            partition,
            acks: self.shared.settings.acks,
            batch: batch.batch(),
        };
        lane.under_way.push_back(batch);
        self.link
            .as_mut()
            .expect("a batch is given where there is one")
            .send(request, self.routes.of(partition));
    }

    /// Makes the way to the agent where one is wanted.
    fn connect(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| until > now) || self.naming.is_some() || self.opening.is_some() {
            return;
        }
        self.paused_until = None;
        let (connection, shared) = (self.connection.clone(), self.shared.clone());
        let nameless = shared.settings.idempotent && self.identity.is_none() && self.link_wanted;
        let renew = self.epoch_due && self.numbered == 0;
        if nameless || renew {
            let identity = self.identity;
            self.naming = Some(Box::pin(async move { name(connection, &shared, identity).await }));
        } else if self.link_wanted && self.link.is_none() {
            self.opening = Some(Box::pin(async { Fan::open(connection).await.map(Box::new) }));
        }
    }

    fn on_named(&mut self, identity: Identity) {
        self.identity = Some(identity);
        self.epoch_due = false;
        let shared = self.shared.clone();
        shared
            .state()
            .lanes
            .values_mut()
            .for_each(|lane| lane.next_sequence = 0);
        self.got_through();
    }

    fn got_through(&mut self) {
        (self.pause, self.paused_until, self.down_since) = (Duration::ZERO, None, None);
        if self.link.is_some() {
            self.link_wanted = false;
        }
        self.shared.state().mark_all_due();
    }

    fn on_answer(&mut self, partition: u32, result: Result<v1::ProduceResponse, ClientError>) {
        let shared = self.shared.clone();
        let mut state = shared.state();
        let lane = state.lanes.get_mut(&partition).expect("it was sent from there");
        let batch = lane.under_way.pop_front().expect("a request is answered once");
        match result {
            Ok(answer) => {
                lane.got_through();
                self.settle(batch, Ok(answer));
            }
            Err(error) => self.on_refused(&mut state, partition, batch, error),
        }
        state.mark_due(partition);
    }

    fn on_refused(&mut self, state: &mut State, partition: u32, mut batch: SealedBatch, error: ClientError) {
        let is_moved = self.routes.learn(&self.connection, partition, &error);
        let settings = &self.shared.settings;
        let may_repeat = state.ended.is_none() && batch.first_sent.elapsed() < settings.retry_for;
        let remedy = remedy(&error, settings.idempotent);
        let lane = state.lanes.get_mut(&partition).expect("it was sent from there");
        match remedy {
            Remedy::Again(least) if may_repeat => {
                let least = if is_moved { Duration::ZERO } else { least };
                // Those behind it come back too, and wait as long as the first.
                if lane.again.is_empty() {
                    lane.pause(least);
                }
                // Behind one that was not stored it was not either.
                if lane.before(&batch).is_some_and(|before| before.sequence.is_none()) {
                    self.unnumber(&mut batch);
                }
                lane.put_again(batch);
                if let Some(link) = &mut self.link {
                    link.is_draining = true;
                }
            }
            Remedy::Renumber if may_repeat => {
                self.epoch_due = true;
                self.unnumber(&mut batch);
                lane.put_again(batch);
            }
            _ => {
                let was_refused = matches!(remedy, Remedy::Tell);
                self.close_gap(lane, &batch, &error, was_refused);
                if matches!(remedy, Remedy::End) || settings_stop(&self.shared) {
                    state.ended.get_or_insert_with(|| error.clone());
                }
                self.settle(batch, Err(error));
            }
        }
    }

    /// A batch that has a number will not be stored: what follows cannot have the numbers behind it.
    fn close_gap(&mut self, lane: &mut Lane, batch: &SealedBatch, error: &ClientError, was_refused: bool) {
        let Some(sequence) = batch.sequence else { return };
        if error.reason() == Some("SEQUENCE_FORGOTTEN") {
            return; // It was stored.
        }
        if was_refused && lane.under_way.is_empty() && lane.again.is_empty() {
            lane.next_sequence = sequence;
        } else {
            self.epoch_due = true;
        }
    }

    /// The call is over that a batch was sent over: it is sent again where that cannot store it twice.
    fn on_lost(&mut self, partition: u32, error: ClientError) {
        let shared = self.shared.clone();
        let mut state = shared.state();
        let lane = state.lanes.get_mut(&partition).expect("it was sent from there");
        let batch = lane.under_way.pop_front().expect("a request is lost once");
        let idempotent = shared.settings.idempotent;
        if idempotent && matches!(remedy(&error, idempotent), Remedy::Again(_)) {
            self.on_refused(&mut state, partition, batch, error);
        } else {
            self.routes.learn(&self.connection, partition, &error);
            self.epoch_due |= batch.sequence.is_some();
            if settings_stop(&shared) {
                state.ended.get_or_insert_with(|| error.clone());
            }
            self.settle(batch, Err(error));
        }
        state.mark_due(partition);
    }

    /// No call gets through: what waits goes on waiting where that has any use.
    fn on_unreachable(&mut self, error: &ClientError) {
        let shared = self.shared.clone();
        let now = Instant::now();
        let down_since = *self.down_since.get_or_insert(now);
        let helps = matches!(remedy(error, shared.settings.idempotent), Remedy::Again(_));
        let limit = match error.is_away() {
            true => shared.settings.unreachable_for,
            false => shared.settings.retry_for,
        };
        self.pause = (self.pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
        self.paused_until = Some(now + self.pause);
        if helps && now - down_since < limit {
            return;
        }
        let mut state = shared.state();
        self.give_up(&mut state, error);
        self.link_wanted = false;
        if settings_stop(&shared) || shared.settings.idempotent && self.identity.is_none() {
            state.ended.get_or_insert_with(|| error.clone());
        }
    }

    /// Fails everything that is not under way.
    fn give_up(&mut self, state: &mut State, error: &ClientError) {
        let compression = self.shared.settings.compression;
        for lane in state.lanes.values_mut() {
            lane.close_open();
            let again: Vec<_> = lane.again.drain(..).collect();
            // Some of them may have been stored.
            self.epoch_due |= again.iter().any(|batch| batch.sequence.is_some());
            let unsent = lane.full.drain(..).map(|full| full.seal(compression));
            for batch in again.into_iter().chain(unsent) {
                self.settle(batch, Err(error.clone()));
            }
        }
    }

    /// Tells what became of a batch, and gives back its room.
    fn settle(&mut self, mut batch: SealedBatch, result: Result<v1::ProduceResponse, ClientError>) {
        self.unnumber(&mut batch);
        match &result {
            Ok(answer) => self.shared.ledger.acknowledged(&batch.numbers, answer),
            Err(error) => self.shared.ledger.failed(&batch.numbers, error),
        }
        batch.teller.tell(result);
        self.shared.room.add_permits(batch.room);
    }

    fn unnumber(&mut self, batch: &mut SealedBatch) {
        if batch.sequence.take().is_some() {
            self.numbered -= 1;
        }
    }
}

fn settings_stop(shared: &Shared) -> bool {
    shared.settings.stop_at_failure
}

/// Makes the producer, or gives it a greater epoch.
async fn name(connection: Connection, shared: &Shared, known: Option<Identity>) -> Result<Identity, ClientError> {
    let request = v1::InitProducerRequest {
        producer_name: shared.settings.name.clone(),
        producer_id: known.map(|known| known.id).filter(|_| shared.settings.name.is_empty()),
        producer_epoch: known.map(|known| known.epoch.into()),
    };
    let answer = connection.producer().init_producer(request).await;
    let answer = answer.map_err(|status| connection.error(status))?.into_inner();
    let epoch = i16::try_from(answer.producer_epoch).map_err(|_| ClientError::BadAnswer {
        reason: format!("a producer's epoch is {}", answer.producer_epoch),
    })?;
    Ok(Identity {
        id: answer.producer_id,
        epoch,
    })
}

/// Waits for the future in `slot`, for ever where there is none. It stays in the slot, so a cancelled wait loses nothing.
async fn pending<F: Future + Unpin>(slot: &mut Option<F>) -> F::Output {
    match slot {
        Some(future) => Pin::new(future).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
