//! What each part of the packet path costs: nanoseconds, throughput and allocations per packet.
//!
//! `cargo bench -p adit-bench` does all, `cargo bench -p adit-bench -- esp/seal` those with this in their names.

use std::io::Write as _;
use std::time::{Duration, Instant};

use adit_bench::micro::{Subject, Work, catalogue};
use adit_testing::counting_allocator::{CountingAllocator, allocations};
use criterion::{Criterion, Throughput};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Rounds in which allocations are counted.
const COUNTED: u32 = 16;

/// What a subject costs, for the table at the end.
struct Row {
    name: String,
    /// Of each of criterion's samples.
    nanoseconds: Vec<f64>,
    allocations: f64,
}

impl Row {
    /// The middle one of the samples.
    fn nanoseconds(&self) -> Option<f64> {
        let mut sorted = self.nanoseconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }
}

/// Allocations of one packet, lookup or capsule.
fn allocations_per_element(subject: &Subject, work: &mut dyn Work) -> f64 {
    let mut counted = 0;
    for _ in 0..COUNTED {
        work.prepare();
        let before = allocations();
        work.run();
        counted += allocations() - before;
    }
    counted as f64 / (f64::from(COUNTED) * subject.elements() as f64)
}

/// So many rounds without the time it takes to prepare them.
fn time(work: &mut dyn Work, rounds: u64) -> Duration {
    let mut taken = Duration::ZERO;
    for _ in 0..rounds {
        work.prepare();
        let begin = Instant::now();
        work.run();
        taken += begin.elapsed();
    }
    taken
}

/// Measures one subject; `None` if it was not asked for.
fn measure(criterion: &mut Criterion, subject: &Subject) -> Option<Row> {
    let (elements, bytes) = (subject.elements(), subject.bytes());
    let (group, name) = subject.name().rsplit_once('/').unwrap_or_else(|| ("", subject.name()));
    let mut warm = None;
    let mut row = None;
    let mut group = criterion.benchmark_group(group);
    group.throughput(if bytes == 0 {
        Throughput::Elements(elements)
    } else {
        Throughput::ElementsAndBytes { elements, bytes }
    });
    group.bench_function(name, |bencher| {
        let work = &mut **warm.get_or_insert_with(|| subject.warm());
        let row = row.get_or_insert_with(|| Row {
            name: subject.name().to_owned(),
            nanoseconds: Vec::new(),
            allocations: allocations_per_element(subject, work),
        });
        bencher.iter_custom(|rounds| {
            let taken = time(work, rounds);
            row.nanoseconds.push(taken.as_secs_f64() * 1e9 / (rounds * elements) as f64);
            taken
        });
    });
    group.finish();
    row
}

/// Allocations next to nanoseconds, each for one packet, lookup or capsule.
fn table(rows: &[Row]) -> String {
    let mut table = format!("\n{:<44} {:>12} {:>12}\n", "per packet", "ns", "allocations");
    for row in rows {
        let nanoseconds = row.nanoseconds().map_or_else(String::new, |nanoseconds| format!("{nanoseconds:.1}"));
        table += &format!("{:<44} {nanoseconds:>12} {:>12.3}\n", row.name, row.allocations);
    }
    table
}

fn main() {
    // Half a second makes a cache and a clock rate steady; two give a hundred samples of any subject here.
    let settings =
        Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let mut criterion = settings.configure_from_args();
    let rows: Vec<Row> = catalogue().iter().filter_map(|subject| measure(&mut criterion, subject)).collect();
    criterion.final_summary();
    // Whoever closed the output does not want to read it.
    let _closed = std::io::stdout().write_all(table(&rows).as_bytes());
}
