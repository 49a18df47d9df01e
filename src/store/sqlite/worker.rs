//! The one thread that owns the connection: jobs in, answers out.
//!
//! Jobs that wait together share one transaction, and with it one flush of the disk; nobody is
//! answered before the commit. A refusal undoes its own job only. When the transaction itself
//! fails, each job is tried again alone, so that one that needs more room than there is does not
//! take others with it. The async side never waits on the disk, and a caller that leaves changes
//! nothing: its job runs, its answer is thrown away.

use std::path::Path;
use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::fault::Fault;
use super::room::{REFRESH_ROOM, Room, WRITE_ROOM};
use crate::store::StoreError;

/// Jobs that may wait; callers beyond them wait for their place.
const WAITING_MAX: usize = 1024;
/// Jobs that share a transaction: more would make the first one wait for no further gain.
const BATCH_MAX: usize = 32;

/// What a job does to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Read,
    /// Writes a few rows and this many bytes beside.
    Write(u64),
    /// Begins a refresh, whose end must find its room.
    BeginRefresh,
    /// Ends a refresh, in the room that its begin has made sure of.
    EndRefresh,
}

impl Kind {
    /// Log bytes that must be there beyond what the refreshes under way may take.
    const fn room(self) -> u64 {
        match self {
            Self::Read | Self::EndRefresh => 0,
            Self::Write(bytes) => WRITE_ROOM + bytes,
            Self::BeginRefresh => WRITE_ROOM + REFRESH_ROOM,
        }
    }
}

/// The way to the thread; it ends when the last of these is dropped.
pub(super) struct Jobs(mpsc::Sender<Message>);

/// Who waits for the end.
type Closing = oneshot::Sender<Result<(), StoreError>>;

enum Message {
    Job(Box<dyn Job>),
    Close(Closing),
}

impl Jobs {
    /// Starts the thread with `db`, the database at `path`.
    pub(super) fn start(db: Connection, path: &Path) -> Result<Self, Fault> {
        let room = Room::open(&db, path)?;
        let open_refreshes = open_refreshes(&db)?;
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let worker = Worker { db, room, open_refreshes };
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || worker.run(receiver))
            .map_err(|e| Fault::NoRoom(format!("no thread for the store: {e}")))?;
        Ok(Self(sender))
    }

    /// Has `work` done in a transaction and gives its result once that is durable. `work` may run
    /// more than once, and only the effects of the last run stay.
    pub(super) async fn run<T, W>(
        &self,
        attempt: &'static str,
        kind: Kind,
        work: W,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: Fn(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Call { attempt, kind, work, result: None, reply };
        let closed = || StoreError::closed(attempt);
        self.0.send(Message::Job(Box::new(call))).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Has the jobs before this finished and the database closed.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        if self.0.send(Message::Close(reply)).await.is_err() {
            return Ok(());
        }
        answer.await.unwrap_or(Ok(()))
    }
}

trait Job: Send {
    fn kind(&self) -> Kind;
    /// Does the work. `Ok` also when it was refused, which [`Job::was_refused`] tells; `Err` spoils
    /// the transaction.
    fn run(&mut self, db: &Connection) -> Result<(), Fault>;
    fn was_refused(&self) -> bool;
    /// Answers with the result of the work, or with why it could not be made durable.
    fn answer(self: Box<Self>, committed: Result<(), Fault>);
}

struct Call<T, W> {
    attempt: &'static str,
    kind: Kind,
    work: W,
    result: Option<Result<T, Fault>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, W> Job for Call<T, W>
where
    T: Send,
    W: Fn(&Connection) -> Result<T, Fault> + Send,
{
    fn kind(&self) -> Kind {
        self.kind
    }

    fn run(&mut self, db: &Connection) -> Result<(), Fault> {
        match (self.work)(db) {
            Err(fault) if fault.spoils() => Err(fault),
            result => {
                self.result = Some(result);
                Ok(())
            }
        }
    }

    fn was_refused(&self) -> bool {
        matches!(self.result, Some(Err(_)))
    }

    fn answer(self: Box<Self>, committed: Result<(), Fault>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) => result.map_err(|fault| fault.into_error(self.attempt)),
            (Err(fault), _) => Err(fault.into_error(self.attempt)),
            (Ok(()), None) => Err(StoreError::closed(self.attempt)),
        };
        // A caller that has left does not want the answer.
        drop(self.reply.send(result));
    }
}

struct Worker {
    db: Connection,
    room: Room,
    /// Refreshes whose end must find its room.
    open_refreshes: u64,
}

impl Worker {
    fn run(mut self, mut jobs: mpsc::Receiver<Message>) {
        while let Some(message) = jobs.blocking_recv() {
            let (batch, close) = gather(message, &mut jobs);
            self.serve(batch);
            if let Some(reply) = close {
                drop(jobs);
                drop(reply.send(self.close()));
                return;
            }
            self.room.tidy(&self.db);
        }
    }

    fn serve(&mut self, mut batch: Vec<Box<dyn Job>>) {
        if batch.len() > 1 && self.transact(&mut batch).is_ok() {
            for job in batch {
                job.answer(Ok(()));
            }
            return;
        }
        for mut job in batch {
            let committed = self.transact(std::slice::from_mut(&mut job));
            job.answer(committed);
        }
    }

    /// Runs `jobs` in one transaction; `Err` when none of them has left a trace.
    fn transact(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), Fault> {
        let writes = jobs.iter().any(|job| job.kind() != Kind::Read);
        if !self.db.is_autocommit() {
            // the end of the one before failed too, as it may on a disk in trouble
            self.db.execute_batch("ROLLBACK")?;
        }
        self.make_room(jobs)?;
        self.db.execute_batch("BEGIN IMMEDIATE")?;
        let outcome = run_all(&self.db, jobs).and_then(|()| Ok(self.db.execute_batch("COMMIT")?));
        if outcome.is_err() && !self.db.is_autocommit() {
            self.db.execute_batch("ROLLBACK")?;
        }
        if writes {
            // The transaction has ended one way or the other: no error here may make it look
            // otherwise.
            self.room.measure(&self.db);
            self.open_refreshes =
                open_refreshes(&self.db).unwrap_or(self.open_refreshes + jobs.len() as u64);
        }
        outcome
    }

    fn make_room(&mut self, jobs: &[Box<dyn Job>]) -> Result<(), Fault> {
        if jobs.iter().any(|job| job.kind() == Kind::BeginRefresh) {
            self.room.ensure_free()?;
        }
        let room: u64 = jobs.iter().map(|job| job.kind().room()).sum();
        if room == 0 {
            return Ok(());
        }
        self.room.ensure(&self.db, room + self.open_refreshes * REFRESH_ROOM)
    }

    /// Leaves one whole file behind, without a log.
    fn close(self) -> Result<(), StoreError> {
        let attempt = "close the database";
        self.db.close().map_err(|(_, error)| Fault::from(error).into_error(attempt))
    }
}

/// The jobs that wait, up to the first wish to close.
fn gather(
    first: Message,
    jobs: &mut mpsc::Receiver<Message>,
) -> (Vec<Box<dyn Job>>, Option<Closing>) {
    let mut batch = Vec::new();
    let mut next = Some(first);
    while let Some(message) = next {
        match message {
            Message::Job(job) => batch.push(job),
            Message::Close(reply) => return (batch, Some(reply)),
        }
        next = if batch.len() < BATCH_MAX { jobs.try_recv().ok() } else { None };
    }
    (batch, None)
}

fn run_all(db: &Connection, jobs: &mut [Box<dyn Job>]) -> Result<(), Fault> {
    for job in jobs {
        db.prepare_cached("SAVEPOINT job")?.execute([])?;
        job.run(db)?;
        if job.was_refused() {
            db.prepare_cached("ROLLBACK TO job")?.execute([])?;
        }
        db.prepare_cached("RELEASE job")?.execute([])?;
    }
    Ok(())
}

fn open_refreshes(db: &Connection) -> Result<u64, Fault> {
    let count: i64 =
        db.prepare_cached("SELECT count(*) FROM refreshes")?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(db: &Connection) -> Result<(), Fault> {
        Ok(db.execute_batch("INSERT INTO refreshes VALUES (1)")?)
    }

    #[test]
    fn a_transaction_that_could_not_be_undone_spoils_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.db");
        let db = Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE refreshes (tenant INTEGER)")
            .unwrap();
        let room = Room::open(&db, &path).unwrap();
        let mut worker = Worker { db, room, open_refreshes: 0 };
        worker.db.execute_batch("BEGIN; INSERT INTO refreshes VALUES (2)").unwrap();
        let (reply, mut answer) = oneshot::channel();
        let call =
            Call { attempt: "try", kind: Kind::EndRefresh, work: insert, result: None, reply };
        worker.serve(vec![Box::new(call)]);
        assert!(answer.try_recv().unwrap().is_ok());
        assert!(worker.db.is_autocommit());
        assert_eq!(worker.open_refreshes, 1, "what was left open is undone");
    }
}
