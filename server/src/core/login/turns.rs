//! How many logins of one account sources are asked about at a time, so that nobody takes all places at a source by one
//! account, nor has a telephone ring without end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::places::Standing;

/// Logins at a time of one account from all strangers, and as many from each place that it is known to log in from.
const MOST: usize = 2;
/// How long others wait for their turn.
const WAIT: Duration = Duration::from_secs(1);

/// The logins that sources are being asked about. There is an entry for each account as long as somebody waits for it.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<Standing, Arc<Semaphore>>>);

/// The turn of one login.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    of: Standing,
    /// Both are given back before the entry is looked at.
    places: Option<Arc<Semaphore>>,
    place: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// Waits a moment for a turn; `None` if it does not come.
    pub(super) async fn take(&self, of: &Standing) -> Option<Turn<'_>> {
        let places = Arc::clone(self.book().entry(of.clone()).or_insert_with(|| Arc::new(Semaphore::new(MOST))));
        let mut turn = Turn { turns: self, of: of.clone(), places: Some(Arc::clone(&places)), place: None };
        turn.place = timeout(WAIT, places.acquire_owned()).await.ok()?.ok();
        turn.place.is_some().then_some(turn)
    }

    fn book(&self) -> MutexGuard<'_, HashMap<Standing, Arc<Semaphore>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        (self.place, self.places) = (None, None);
        let mut book = self.turns.book();
        if book.get(&self.of).is_some_and(|places| Arc::strong_count(places) == 1) {
            book.remove(&self.of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice(known: Option<&str>) -> Standing {
        Standing { account: "alice".to_owned(), known: known.map(str::to_owned) }
    }

    #[tokio::test(start_paused = true)]
    async fn account_has_two_turns_for_strangers_and_two_for_each_known_place() {
        let turns = Turns::default();
        let strangers = [turns.take(&alice(None)).await.unwrap(), turns.take(&alice(None)).await.unwrap()];
        assert!(turns.take(&alice(None)).await.is_none());
        let of_device = [turns.take(&alice(Some("dev-a"))).await, turns.take(&alice(Some("dev-a"))).await];
        assert!(of_device.iter().all(Option::is_some), "whatever strangers do");
        assert!(turns.take(&alice(Some("dev-a"))).await.is_none());
        assert!(turns.take(&alice(Some("198.51.100.0/24"))).await.is_some());
        let bob = Standing { account: "bob".to_owned(), known: None };
        assert!(turns.take(&bob).await.is_some(), "the positive control: another account");
        drop((strangers, of_device));
        assert!(turns.book().is_empty(), "nothing is kept of who has gone");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_turn_of_who_is_done() {
        let turns = Turns::default();
        let alice = alice(None);
        let (first, second) = (turns.take(&alice).await, turns.take(&alice).await);
        let done = async {
            tokio::time::sleep(WAIT / 2).await;
            drop(first);
        };
        let (third, ()) = tokio::join!(turns.take(&alice), done);
        assert!(third.is_some());
        drop((second, third));
        assert!(turns.book().is_empty());
    }
}
