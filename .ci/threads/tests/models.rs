//! What must hold in every order in which the threads can run: nothing is lost without a count, the order is kept, the end is seen,
//! and no thread waits for ever.

use loom::thread;

use thread_models::daemon::output_senders::{OutputSender, OutputSenders};
use thread_models::daemon::output_thread::OutputItem;
use thread_models::fusion::Estimate;
use thread_models::health::HealthReport;
use thread_models::output::OutputSpec;
use thread_models::queue::{Disconnected, QueueReceiver, SwappableSender, WhenFull, queue};
use thread_models::sync::{Arc, AtomicU64, Ordering};

const ITEMS: u64 = 3;

/// Runs `model` in every order with at most this many switches from a thread that could go on.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

fn counter() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(0))
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[test]
fn a_full_queue_counts_what_it_drops_and_delivers_the_newest() {
    explore(3, || {
        let dropped = counter();
        let (sender, receiver) = queue(1, WhenFull::DropOldest, &dropped);
        let sending = thread::spawn(move || (1..=ITEMS).for_each(|item| sender.send(item).unwrap()));
        let received: Vec<u64> = receiver.iter().collect();
        sending.join().unwrap();
        assert!(received.is_sorted_by(|a, b| a < b), "{received:?}");
        assert_eq!(received.last(), Some(&ITEMS));
        assert_eq!(received.len() as u64 + count(&dropped), ITEMS);
    });
}

#[test]
fn a_full_queue_counts_only_what_counts() {
    explore(3, || {
        let dropped = counter();
        let (sender, receiver) = queue(1, WhenFull::DropOldest, &dropped);
        let sender = sender.count_only(|item| *item != 2);
        let sending = thread::spawn(move || (1..=ITEMS).for_each(|item| sender.send(item).unwrap()));
        let received = receiver.iter().filter(|item| *item != 2).count();
        sending.join().unwrap();
        assert_eq!(received as u64 + count(&dropped), ITEMS - 1);
    });
}

#[test]
fn a_queue_that_waits_loses_nothing() {
    explore(3, || {
        let dropped = counter();
        let (sender, receiver) = queue(1, WhenFull::Wait, &dropped);
        let sending = thread::spawn(move || (1..=ITEMS).for_each(|item| sender.send(item).unwrap()));
        let received: Vec<u64> = receiver.iter().collect();
        sending.join().unwrap();
        assert_eq!(received, (1..=ITEMS).collect::<Vec<_>>());
        assert_eq!(count(&dropped), 0);
    });
}

#[test]
fn a_sender_notices_that_its_receiver_is_gone() {
    for when_full in [WhenFull::Wait, WhenFull::DropOldest] {
        explore(3, move || {
            let (sender, receiver) = queue(1, when_full, &counter());
            let receiving = thread::spawn(move || receiver.recv().is_ok());
            let sent = (1..=ITEMS).take_while(|item| sender.send(*item).is_ok()).count();
            assert!(receiving.join().unwrap() && sent > 0);
            assert_eq!(sender.send(ITEMS + 1), Err(Disconnected));
        });
    }
}

#[test]
fn each_item_goes_to_the_queue_before_a_swap_or_to_the_one_after_it() {
    for when_full in [WhenFull::Wait, WhenFull::DropOldest] {
        explore(2, move || {
            let dropped = counter();
            let swappable = Arc::new(SwappableSender::default());
            let connect = || {
                let (sender, receiver) = queue(1, when_full, &dropped);
                swappable.connect(sender);
                receiver
            };
            let first = connect();
            let source = Arc::clone(&swappable);
            let sending = thread::spawn(move || (1..=ITEMS).for_each(|item| source.send(item).unwrap()));
            let before = thread::spawn(move || first.iter().collect::<Vec<u64>>());
            let second = connect();
            let after = thread::spawn(move || second.iter().collect::<Vec<u64>>());
            sending.join().unwrap();
            swappable.disconnect();
            let mut received = before.join().unwrap();
            received.extend(after.join().unwrap());
            assert!(received.is_sorted_by(|a, b| a < b), "{received:?}");
            assert_eq!(received.len() as u64 + count(&dropped), ITEMS);
        });
    }
}

/// An output, and the queue that its thread reads.
fn output(name: &'static str, dropped: &Arc<AtomicU64>) -> (OutputSender, QueueReceiver<OutputItem>) {
    let (queue, items) = queue(1, WhenFull::DropOldest, dropped);
    let sender = OutputSender {
        spec: OutputSpec(name),
        queue: queue.count_only(|item| matches!(item, OutputItem::Estimate(_))),
        reload: Default::default(),
        exit: Default::default(),
        handover: Default::default(),
        unwritten: Default::default(),
    };
    (sender, items)
}

/// The numbers of the estimates in a queue, until its end.
fn seqs(items: &QueueReceiver<OutputItem>) -> Vec<u64> {
    let seq = |item| match item {
        OutputItem::Estimate(pending) => Some(pending.estimate.seq),
        OutputItem::Health(_) | OutputItem::Wake => None,
    };
    items.iter().filter_map(seq).collect()
}

#[test]
fn each_estimate_goes_to_the_output_before_a_reload_or_to_the_one_after_it() {
    explore(2, || {
        let dropped = counter();
        let outputs = OutputSenders::default();
        let (old, old_items) = output("old", &dropped);
        outputs.lock().push(old);
        let fusion = outputs.clone();
        let sending = thread::spawn(move || {
            for seq in 1..=ITEMS {
                fusion.send_estimate(Estimate { seq }).unwrap();
            }
        });
        let writing = thread::spawn(move || seqs(&old_items));
        let (new, new_items) = output("new", &dropped);
        // At once, as a reload does it.
        let mut senders = outputs.lock();
        let removed: Vec<OutputSender> = senders.drain(..).collect();
        senders.push(new);
        drop(senders);
        drop(removed);
        outputs.send_health(HealthReport).unwrap();
        sending.join().unwrap();
        drop(outputs);
        let mut written = writing.join().unwrap();
        written.extend(seqs(&new_items));
        assert!(written.is_sorted_by(|a, b| a < b), "{written:?}");
        assert_eq!(written.len() as u64 + count(&dropped), ITEMS);
    });
}
