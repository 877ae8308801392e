//! A thread that does one job after another, and whose namespaces are its own.

use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};

/// Jobs waiting for one worker; a caller of [`Worker::run`] waits for its own job anyway.
const QUEUED_JOBS: usize = 16;

type Job = Box<dyn FnOnce() + Send>;

/// A named thread with its own job queue; dropping it lets the queued jobs end and joins the thread.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread, runs `set_up` in it and then the jobs of [`Worker::run`].
    pub(super) fn start(name: &str, set_up: impl FnOnce() -> Result<()> + Send + 'static) -> Result<Self> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(QUEUED_JOBS);
        let (report, ready) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let outcome = set_up();
                let failed = outcome.is_err();
                if report.send(outcome).is_err() || failed {
                    return;
                }
                for job in queue {
                    job();
                }
            })
            .context("start a thread")?;
        let worker = Self { jobs: Some(jobs), thread: Some(thread) };
        ready.recv().map_err(|_| anyhow!("the thread {name} ended during its set-up"))??;
        Ok(worker)
    }

    /// Runs one job on this worker's thread and waits for its value.
    pub(super) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (result, value) = mpsc::sync_channel(1);
        let job = Box::new(move || drop(result.send(job())));
        let jobs = self.jobs.as_ref().expect("the queue is only taken on drop");
        jobs.send(job).expect("a worker lives as long as its handle");
        value.recv().expect("a job must not panic")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was already reported when it happened.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_on_the_workers_own_thread() {
        let worker = Worker::start("somewhere", || Ok(())).unwrap();
        let name = worker.run(|| thread::current().name().map(str::to_owned));
        assert_eq!(name.as_deref(), Some("somewhere"));
    }

    #[test]
    fn failed_set_up_is_returned() {
        let outcome = Worker::start("broken", || Err(anyhow!("no room")));
        assert_eq!(outcome.unwrap_err().to_string(), "no room");
    }
}
