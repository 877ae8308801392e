//! What the name or the unit of a metric says about it.

/// Metrics that begin so count packets dropped for one reason, and are there only where there were any.
pub(super) const DROPS: &str = "drop_";

/// Units of which less is better.
pub(crate) const COSTS: [&str; 6] = ["µs", "ms", "s", "s/GB", "KiB", "MiB"];

/// Metrics that are shown only where one of their values is not zero: they say that something was lost or mended.
const QUIET: [&str; 11] = [
    "retransmits",
    "checksum_errors",
    "out_of_order",
    "reordering",
    "udp_buffer_drops",
    "device_drops",
    "relay_overrun",
    "reordered",
    "duplicated",
    "lost",
    "sender_limited",
];

/// Whether a metric counts what was lost or mended, so that its usual value is zero.
pub(super) fn tells_of_trouble(metric: &str) -> bool {
    QUIET.contains(&metric) || metric.starts_with(DROPS)
}

/// Whether a metric is a percentile, such as `p99.9`.
pub(super) fn is_percentile(metric: &str) -> bool {
    metric.strip_prefix('p').is_some_and(|number| number.parse::<f64>().is_ok())
}
