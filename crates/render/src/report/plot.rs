//! Plots of a result file, as SVG. Each model has the same colour and marker in all of them,
//! intervals are drawn, and each file suits light and dark pages and has a description in words.

pub(crate) mod bars;
mod calls;
pub(crate) mod colour;
pub(crate) mod data;
pub(crate) mod lines;
mod map;
pub(crate) mod page;
mod protocols;
pub(crate) mod scale;

use record::Results;

use verdict::summary::Summary;

/// A plot: the name of its file without `.svg`, and its text.
pub struct Plot {
    /// Such as `rate-http-keepalive`.
    pub name: String,
    /// The title, as alternative text.
    pub title: String,
    /// The SVG document.
    pub svg: String,
}

/// All plots for which the result has data.
pub fn all(results: &Results, summary: &Summary) -> Vec<Plot> {
    let mut plots = Vec::new();
    for workload in &summary.workloads {
        plots.extend(bars::rate(results, workload));
        plots.extend(bars::cpu(results, workload));
        plots.extend(calls::plot(workload));
    }
    plots.extend(map::plot(results, summary));
    plots.extend(lines::by_idle(results, summary));
    plots.extend(lines::by_rate(results, summary));
    plots.extend(protocols::cpu(results, summary));
    plots.extend(bars::memory(results, summary));
    plots.extend(protocols::memory(results, summary));
    plots
}

#[cfg(test)]
mod tests {
    use super::*;
    use verdict::summary::summarise;

    fn drawn(results: &Results) -> Vec<Plot> {
        all(results, &summarise(results))
    }

    fn named<'a>(plots: &'a [Plot], name: &str) -> &'a str {
        &plots.iter().find(|plot| plot.name == name).unwrap().svg
    }

    #[test]
    fn a_rich_result_has_every_plot_and_a_plain_one_the_plain_ones() {
        let names = |plots: Vec<Plot>| plots.into_iter().map(|p| p.name).collect::<Vec<_>>();
        assert_eq!(
            names(drawn(&fixture::rich())),
            [
                "rate-http-keepalive",
                "cpu-http-keepalive",
                "calls-http-keepalive",
                "rate-idle-10000",
                "cpu-idle-10000",
                "rate-idle-1000",
                "cpu-idle-1000",
                "cpu-rate-10000",
                "cpu-rate-20000",
                "cpu-rate-40000",
                "map",
                "cpu-by-idle",
                "cpu-by-rate",
                "memory",
            ]
        );
        assert_eq!(
            names(drawn(&fixture::results())),
            [
                "rate-http-keepalive",
                "cpu-http-keepalive",
                "rate-idle-10000",
                "cpu-idle-10000",
                "map",
                "cpu-by-idle",
                "memory",
            ]
        );
    }

    #[test]
    fn every_plot_is_whole_and_follows_the_theme() {
        for plot in drawn(&fixture::rich()).into_iter().chain(drawn(&fixture::protocols())) {
            let svg = &plot.svg;
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            assert!(svg.contains("@media (prefers-color-scheme: dark)"), "{}", plot.name);
            assert!(svg.contains("<title id=\"title\">"), "{}", plot.name);
            let told = svg.split("<desc id=\"desc\">").nth(1).unwrap();
            let told = told.split("</desc>").next().unwrap();
            assert!(told.contains("epoll"), "{}: {told}", plot.name);
            assert!(told.contains(|c: char| c.is_ascii_digit()), "{}: {told}", plot.name);
        }
    }

    /// Size of text at README width: with 900 units on 830 pixels, 13 become 12.
    #[test]
    fn no_text_is_too_small_to_read() {
        for plot in drawn(&fixture::rich()).into_iter().chain(drawn(&fixture::protocols())) {
            for rest in plot.svg.split("font-size=\"").skip(1) {
                let size: f64 = rest.split('"').next().unwrap().parse().unwrap();
                assert!(size * 830.0 / f64::from(page::WIDTH) >= 12.0, "{}: {size}", plot.name);
            }
        }
    }

    #[test]
    fn nothing_to_draw_is_no_plot() {
        let mut results = fixture::rich();
        results.trials.clear();
        assert!(drawn(&results).is_empty());
    }

    #[test]
    fn a_bound_is_hatched_and_says_so() {
        let plots = drawn(&fixture::results());
        let rate = named(&plots, "rate-http-keepalive");
        assert!(rate.contains(">= ") || rate.contains("&gt;= "), "{rate}");
        assert!(rate.contains("hatched"), "{rate}");
        // threads, whose client was the limit, is hatched in its colour.
        let threads = "stroke=\"#9A5B13\"";
        assert!(rate.contains(threads) && rate.contains("url(#hatch-"), "{rate}");
        assert!(!named(&plots, "cpu-http-keepalive").contains(threads));
    }

    #[test]
    fn intervals_are_drawn() {
        let whiskers = |results: &Results| {
            let plots = drawn(results);
            let rate = named(&plots, "rate-http-keepalive");
            rate.matches("stroke=\"#2D333B\" stroke-width=\"2\"").count()
        };
        let mut results = fixture::results();
        // All models but the reference have one.
        assert_eq!(whiskers(&results), 5);
        results.trials.retain(|trial| trial.slot.round <= 2);
        assert_eq!(whiskers(&results), 0, "two epochs have no interval");
    }

    #[test]
    fn memory_that_shrank_is_told_and_has_no_length() {
        let mut results = fixture::rich();
        for trial in results.trials.iter_mut().filter(|trial| trial.slot.model == "epoll") {
            if let record::Outcome::Measured(measured) = &mut trial.outcome
                && let Some(idle) = &mut measured.idle
            {
                idle.memory.pss_kib = idle.memory_before.pss_kib - 1_000;
            }
        }
        let plots = drawn(&results);
        let svg = named(&plots, "memory");
        assert!(svg.contains("epoll: -0.100 + "), "{svg}");
        assert!(svg.contains("below 0: it shrank") && !svg.contains("width=\"-"), "{svg}");
        assert!(!named(&drawn(&fixture::rich()), "memory").contains("below 0"));
    }

    #[test]
    fn the_floor_is_a_dashed_line_and_no_competitor() {
        let plots = drawn(&fixture::rich());
        let cpu = named(&plots, "cpu-http-keepalive");
        assert!(cpu.contains("server that parses nothing"), "{cpu}");
        assert!(!cpu.contains("\nfloor\n"), "{cpu}");
        let plain = drawn(&fixture::results());
        assert!(!named(&plain, "cpu-http-keepalive").contains("parses nothing"));
    }

    #[test]
    fn a_line_of_rates_stops_where_the_server_falls_behind_and_goes_on_to_its_capacity() {
        let plots = drawn(&fixture::rich());
        let svg = named(&plots, "cpu-by-rate");
        assert!(svg.contains("poll: 11.0 at 10,000, 11.0 at 20,000; capacity: "), "{svg}");
        assert!(svg.contains("poll (to 20,000)"), "{svg}");
    }

    #[test]
    fn the_idle_axis_needs_two_places() {
        let mut results = fixture::rich();
        results.workloads.retain(|w| w.name != "http-keepalive" && w.name != "idle-1000");
        let plots = drawn(&results);
        assert!(plots.iter().all(|plot| plot.name != "cpu-by-idle"));
    }
}
