//! The plots of each task.

use super::super::markup::Markup;
use super::super::model::Run;
use super::super::overlay::{Entrant, Metric, Overlay};
use super::super::plot::{Axis, Bar, Bars, Labels, Line, Lines, Row, Sample};
use super::super::table::number;

/// The share of answers up to which round-trip times are drawn.
const DRAWN: f64 = 0.999;
/// What ends the explanation of a plot in which each run is a line.
const THIN: &str =
    "The thick line of a system is its run with the median value, thin ones are its other runs; nothing is averaged.";

/// What a task did, for who does not know its name.
fn explanation(task: &str) -> &'static str {
    match task {
        "tcp-up" => "One TCP connection under full load, from the client to the gateway.",
        "tcp-down" => "One TCP connection under full load, from the gateway to the client.",
        "tcp-both" => "Two TCP connections under full load at once, one in each direction.",
        "tcp-half" => "One TCP connection to the gateway at half the rate that it reached alone.",
        "tcp4-up" => "Four TCP connections under full load, from the client to the gateway.",
        "tcp4-down" => "Four TCP connections under full load, from the gateway to the client.",
        "udp1200-loss" => {
            "The highest rate of UDP packets of 1,200 bytes to the gateway that holds the permitted loss, by search."
        }
        "udp64-loss" => {
            "The highest rate of UDP packets of 64 bytes to the gateway that holds the permitted loss, by search."
        }
        "udp1200-flood" => "What arrives while the client sends as many UDP packets of 1,200 bytes as it can.",
        "udp64-flood" => "What arrives while the client sends as many UDP packets of 64 bytes as it can.",
        "flooded" => {
            "One TCP connection to the gateway while a stranger sends 50,000 bad datagrams a second to its port."
        }
        "rtt-idle" => "Round-trip times of 1,000 echo requests a second through an otherwise idle tunnel.",
        "rtt-load" => "Round-trip times of 1,000 echo requests a second while one TCP connection uploads at full load.",
        "memory-growth" => "What the processes gain in resident memory by ten short transfers.",
        "memory" => "Resident memory of the processes after all tasks before.",
        "connect" => "From the start of the client to the first packet that passes.",
        "reconnect" => "From the return of a pulled cable, and from a gateway's death, to the next packet that passes.",
        _ => "",
    }
}

/// One or more plots for each task.
pub(super) fn all(markup: &mut Markup, overlay: &Overlay<'_>) {
    markup.words(
        "p",
        &[("class", &"muted")],
        "Bars end at the median over the rounds. Each dot is one round, and the line through the dots goes \
             from the lowest to the highest; a hollow \
         dot is a run that was disturbed. A system has the same colour everywhere.",
    );
    for task in overlay.tasks() {
        markup.line();
        markup.words("h3", &[], task);
        markup.words("p", &[], explanation(task));
        markup.element("div", &[("class", &"plots")], |markup| {
            let curves = distribution(markup, overlay, task);
            match overlay.lead(task) {
                Some(lead) if lead.unit == "MiB" => memory(markup, overlay, task),
                Some(lead) if !curves => bars(markup, overlay, lead),
                Some(_) => {}
                None => absent(markup, overlay, task),
            }
            tail(markup, overlay, task);
            cost(markup, overlay, task);
            timelines(markup, overlay, task);
        });
    }
}

/// A plot with its headline and what must be known to read it.
fn figure(markup: &mut Markup, headline: &str, caption: &str, plot: impl FnOnce(&mut Markup)) {
    markup.element("figure", &[], |markup| {
        markup.element("figcaption", &[], |markup| {
            markup.words("b", &[], headline);
            markup.text(caption);
        });
        plot(markup);
    });
}

fn axis_of(metric: Metric<'_>) -> String {
    let better = if metric.is_cost() { "less" } else { "more" };
    format!("{} [{}], {better} is better", metric.name, metric.unit)
}

/// A row of words for a system without a value.
fn absent_row(system: &Entrant<'_>, task: &str) -> Row {
    let note = system.absence(task);
    let hint = format!("{}: {note}", system.name);
    Row { name: system.name.clone(), series: system.series, bar: Bar::Absent, note, hint }
}

/// The names of all who should have done a task that nobody has a result of.
fn absent(markup: &mut Markup, overlay: &Overlay<'_>, task: &str) {
    let rows = overlay.systems.iter().map(|system| absent_row(system, task)).collect();
    let plot = Bars { title: format!("{task}: no result"), axis: String::new(), parts: Vec::new(), rows };
    figure(markup, "No result", "", |markup| plot.draw(markup));
}

/// One metric of all systems.
fn bars(markup: &mut Markup, overlay: &Overlay<'_>, metric: Metric<'_>) {
    let row = |system: &Entrant<'_>| {
        let Some(figure) = system.figure(metric) else { return absent_row(system, metric.task) };
        let values = system.runs(metric.task).filter_map(|run| Some((run.value(metric.name)?, run.disturbed)));
        let samples: Vec<Sample> = values.map(|(value, disturbed)| Sample { value, disturbed }).collect();
        let median = number(figure.median);
        let is_reference = system.report.reference.as_deref() == Some(&figure.system);
        let ratio = figure.ratio.filter(|_| !is_reference).map(|ratio| format!(", {ratio:.2} ×")).unwrap_or_default();
        let rounds = system.report.rounds;
        let whole = u32::try_from(figure.count).is_ok_and(|count| count >= rounds);
        let rest = if whole { ratio } else { format!(" ({} of {rounds})", figure.count) };
        let hint = format!(
            "{}: median {median} {}, {}–{} in {} of {rounds} rounds",
            system.name,
            metric.unit,
            number(figure.low),
            number(figure.high),
            figure.count
        );
        let bar = Bar::Spread { median: figure.median, samples };
        Row { name: system.name.clone(), series: system.series, bar, note: format!("{median}{rest}"), hint }
    };
    let rows = overlay.systems.iter().map(row).collect();
    let title = format!("{}: {} in {} of each system", metric.task, metric.name, metric.unit);
    let plot = Bars { title, axis: axis_of(metric), parts: Vec::new(), rows };
    figure(markup, &metric.title(), "", |markup| plot.draw(markup));
}

/// The tail of round-trip times, beside the curves.
fn tail(markup: &mut Markup, overlay: &Overlay<'_>, task: &str) {
    if let Some(metric) = overlay.metrics(task).into_iter().find(|metric| metric.name == "p99") {
        bars(markup, overlay, metric);
    }
}

/// A part of a stacked bar: its name, and its value in a run.
type Part<'a> = (&'a str, &'a dyn Fn(&Run) -> Option<f64>);

/// Stacked bars: each system's run whose sum is the median.
fn stack(markup: &mut Markup, overlay: &Overlay<'_>, metric: Metric<'_>, parts: &[Part<'_>]) {
    let all = |run: &Run| {
        let values: Vec<f64> = parts.iter().filter_map(|(_, value)| value(run)).collect();
        (!values.is_empty()).then_some(values)
    };
    let row = |system: &Entrant<'_>| {
        let run = system.median_run(metric.task, |run| all(run).map(|values| values.iter().sum()));
        let Some(values) = run.and_then(all) else { return absent_row(system, metric.task) };
        let note = number(values.iter().sum());
        let named = parts.iter().zip(&values).map(|((name, _), value)| format!("{name} {}", number(*value)));
        let hint = format!("{}: {}", system.name, named.collect::<Vec<_>>().join(", "));
        Row { name: system.name.clone(), series: system.series, bar: Bar::Stack(values), note, hint }
    };
    let rows = overlay.systems.iter().map(row).collect();
    let title = format!("{}: {} in {} of each system, in parts", metric.task, metric.name, metric.unit);
    let parts = parts.iter().map(|(name, _)| (*name).to_owned()).collect();
    let plot = Bars { title, axis: axis_of(metric), parts, rows };
    let caption = "Of each system the run with the median sum.";
    figure(markup, &metric.title(), caption, |markup| plot.draw(markup));
}

/// Processor time per gigabyte in user space and in the kernel, of each end where that is known, else of both together.
fn cost(markup: &mut Markup, overlay: &Overlay<'_>, task: &str) {
    let metrics = overlay.metrics(task);
    let Some(metric) = metrics.iter().find(|metric| metric.name == "cpu") else { return };
    let of = |name: &'static str| move |run: &Run| run.value("cpu").map(|_| run.value(name).unwrap_or(0.0));
    if metrics.iter().any(|metric| metric.name == "cpu_gateway_user") {
        let [gateway_user, gateway_system] = ["cpu_gateway_user", "cpu_gateway_system"].map(of);
        let [client_user, client_system] = ["cpu_client_user", "cpu_client_system"].map(of);
        let parts: [Part<'_>; 4] = [
            ("gateway, user", &gateway_user),
            ("gateway, system", &gateway_system),
            ("client, user", &client_user),
            ("client, system", &client_system),
        ];
        return stack(markup, overlay, *metric, &parts);
    }
    let user = of("cpu_user");
    let system = |run: &Run| Some((run.value("cpu")? - run.value("cpu_user").unwrap_or(0.0)).max(0.0));
    stack(markup, overlay, *metric, &[("user", &user), ("system", &system)]);
}

/// Memory of both ends.
fn memory(markup: &mut Markup, overlay: &Overlay<'_>, task: &str) {
    let metrics = overlay.metrics(task);
    let (gateway, client) = (|run: &Run| run.value("gateway"), |run: &Run| run.value("client"));
    let [true, true] = ["gateway", "client"].map(|name| metrics.iter().any(|metric| metric.name == name)) else {
        return metrics.into_iter().for_each(|metric| bars(markup, overlay, metric));
    };
    let metric = Metric { task, name: "resident", unit: "MiB" };
    stack(markup, overlay, metric, &[("gateway", &gateway), ("client", &client)]);
}

/// Which run of a system stands for it in a plot of lines: that with the median p99, or the median of the first metric.
fn shown<'a>(system: &Entrant<'a>, task: &str, metric: Option<Metric<'_>>) -> Option<&'a Run> {
    let value = |run: &Run| metric.and_then(|metric| run.value(metric.name)).or_else(|| run.value("p99"));
    system.median_run(task, value).or_else(|| system.runs(task).next())
}

/// The lines of all systems: thin ones first, so that the named ones lie on top.
fn lines_of(
    overlay: &Overlay<'_>,
    task: &str,
    metric: Option<Metric<'_>>,
    points: impl Fn(&Run) -> Option<Vec<(f64, f64)>>,
) -> Vec<Line> {
    let (mut thin, mut thick) = (Vec::new(), Vec::new());
    for system in &overlay.systems {
        let chosen = shown(system, task, metric);
        for run in system.runs(task) {
            let Some(points) = points(run).filter(|points| !points.is_empty()) else { continue };
            let is_chosen = chosen.is_some_and(|chosen| std::ptr::eq(chosen, run));
            let name = is_chosen.then(|| system.name.clone());
            let lines = if is_chosen { &mut thick } else { &mut thin };
            lines.push(Line { name, series: system.series, points });
        }
    }
    thin.extend(thick);
    thin
}

/// Who has no line, and why.
fn without_line(overlay: &Overlay<'_>, task: &str, lines: &[Line]) -> String {
    let drawn = |system: &&Entrant<'_>| !lines.iter().any(|line| line.series == system.series && line.name.is_some());
    let missing = overlay.systems.iter().filter(drawn);
    let names: Vec<String> = missing.map(|system| format!("{} ({})", system.name, system.absence(task))).collect();
    if names.is_empty() { String::new() } else { format!(" Without a line: {}.", names.join(", ")) }
}

/// Curves of round-trip times; tells whether there were any.
fn distribution(markup: &mut Markup, overlay: &Overlay<'_>, task: &str) -> bool {
    let points = |run: &Run| run.latencies.as_deref().map(curve);
    let p99 = overlay.metrics(task).into_iter().find(|metric| metric.name == "p99");
    let lines = lines_of(overlay, task, p99, points);
    if lines.is_empty() {
        return false;
    }
    let times = lines.iter().flat_map(|line| line.points.iter().map(|point| point.0));
    let x = Axis::logarithmic(times, "round-trip time [µs], logarithmic, less is better");
    let y = Axis::tail("share of requests answered within it, up to 99.9 %");
    let caption = format!(
        "Further left is better. Both axes are stretched so that the slowest thousandth can be seen. The \
             thick line of a system is its run with \
         the median p99, thin ones are its other runs; nothing is averaged. A line that ends below 99.9 % \
              lost the rest.{}",
        without_line(overlay, task, &lines)
    );
    let title = format!("{task}: distribution of round-trip times of each system");
    let plot = Lines { title, x, y, labels: Labels::Above, lines };
    figure(markup, &format!("{task} distribution"), &caption, |markup| plot.draw(markup));
    true
}

/// The share that is not answered yet after each time, from 1 down to what is drawn.
fn curve(latencies: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let Some((fastest, _)) = latencies.first() else { return Vec::new() };
    let mut points = vec![(*fastest, 1.0)];
    for (time, share) in latencies {
        points.push((*time, (1.0 - share).max(1.0 - DRAWN)));
        if *share >= DRAWN {
            break;
        }
    }
    points
}

/// How a value went on during the runs of a task.
fn timelines(markup: &mut Markup, overlay: &Overlay<'_>, task: &str) {
    let points = |run: &Run| {
        let timeline = run.timeline.as_ref()?;
        let mut time = -timeline.interval_seconds / 2.0;
        let points = timeline.values.iter().map(|value| {
            time += timeline.interval_seconds;
            (time, *value)
        });
        Some(points.collect())
    };
    let lines = lines_of(overlay, task, overlay.lead(task), points);
    let runs = overlay.systems.iter().flat_map(|system| system.runs(task));
    let Some(timeline) = runs.into_iter().find_map(|run| run.timeline.as_ref()).filter(|_| !lines.is_empty()) else {
        return;
    };
    let all = || lines.iter().flat_map(|line| line.points.iter());
    let x = Axis::linear(all().map(|point| point.0), "time since counting began [s]");
    let y = Axis::linear(all().map(|point| point.1), format!("{} [{}]", timeline.metric, timeline.unit));
    let caption = format!("{THIN}{}", without_line(overlay, task, &lines));
    let title = format!("{task}: {} over time of each system", timeline.metric);
    let plot = Lines { title, x, y, labels: Labels::Right, lines };
    figure(markup, &format!("{task} over time"), &caption, |markup| plot.draw(markup));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curve_begins_at_all_and_ends_at_the_last_thousandth() {
        let seen = curve(&[(80.0, 0.5), (90.0, 0.99), (120.0, 0.9995), (500.0, 1.0)]);
        let expected = [(80.0, 1.0), (80.0, 0.5), (90.0, 0.01), (120.0, 0.001)];
        assert_eq!(seen.len(), expected.len());
        for (seen, expected) in seen.iter().zip(expected) {
            assert!((seen.0 - expected.0).abs() < 1e-9 && (seen.1 - expected.1).abs() < 1e-9, "{seen:?}");
        }
        assert_eq!(curve(&[]), []);
    }
}
