//! The markers for results of `iolab check-instrument`: the wrong and the right way of measuring,
//! for the same server on the same machine.

use record::{Check, Instrument, Verdict, Way};

/// Text in place of a check that was not made.
pub const NOT_TRIED: &str = "(not tried in this run)";

/// The checks that iolab knows: a name beside these is a slip in the template.
const KNOWN: [&str; 18] = [
    "verify-wrong-bytes",
    "requests-counted",
    "starved-connections",
    "slices",
    "who-is-the-limit",
    "littles-law",
    "coordinated-omission",
    "send-lag",
    "wrk-agreement",
    "h2load-agreement",
    "two-clocks",
    "idle-axis",
    "same-sockets",
    "mechanism-proof",
    "aa-tables",
    "simulated-verdicts",
    "percentile-merge",
    "progress-cost",
];

/// One field of one check, for use inside a sentence.
pub fn field(instrument: Option<&Instrument>, name: &str, field: &str) -> Result<String, String> {
    let found = instrument.and_then(|i| i.checks.iter().find(|check| check.name == name));
    if found.is_none() && !KNOWN.contains(&name) {
        return Err(format!("no check is called {name:?}; there are {}", KNOWN.join(", ")));
    }
    let of_way = |way: fn(&Check) -> &Option<Way>, part: fn(&Way) -> &String| {
        Some(found.and_then(|check| way(check).as_ref()).map(|way| part(way).clone()))
    };
    let text = |part: fn(&Check) -> &String| Some(found.map(|check| part(check).clone()));
    let shown = match field {
        "wrong" => of_way(|check| &check.wrong, |way| &way.figure),
        "wrong-how" => of_way(|check| &check.wrong, |way| &way.how),
        "right" => of_way(|check| &check.right, |way| &way.figure),
        "right-how" => of_way(|check| &check.right, |way| &way.how),
        "measured" => text(|check| &check.measured),
        "expected" => text(|check| &check.expected),
        "fails-if" => text(|check| &check.fails_if),
        "claim" => text(|check| &check.claim),
        "verdict" => Some(found.map(|check| verdict(&check.verdict))),
        _ => None,
    };
    match shown {
        Some(shown) => Ok(shown.unwrap_or_else(|| NOT_TRIED.to_owned())),
        None => Err(format!("no field of a check is called {field:?}")),
    }
}

/// The checks of one rule, with both ways of measuring.
pub fn of_rule(instrument: Option<&Instrument>, rule: u32) -> String {
    let checks = instrument.into_iter().flat_map(|i| &i.checks).filter(|c| c.rule == rule);
    let way = |way: &Option<Way>| match way {
        Some(way) => [way.how.clone(), way.figure.clone()],
        None => ["".to_owned(), "".to_owned()],
    };
    let row = |check: &Check| {
        let ([wrong_how, wrong], [right_how, right]) = (way(&check.wrong), way(&check.right));
        // Without two ways, the measured text.
        let right = if check.right.is_none() { check.measured.clone() } else { right };
        line(&[&check.claim, &wrong_how, &wrong, &right_how, &right, &verdict(&check.verdict)])
    };
    let titles = ["what", "the wrong way", "said", "the right way", "said", "verdict"];
    table(&titles, checks.map(row).collect())
}

/// All checks: bounds and results.
pub fn all(instrument: Option<&Instrument>) -> String {
    let row = |check: &Check| {
        let rule = check.rule.to_string();
        let Check { name, expected, fails_if, measured, .. } = check;
        line(&[&rule, name, expected, fails_if, measured, &verdict(&check.verdict)])
    };
    let checks = instrument.into_iter().flat_map(|instrument| &instrument.checks);
    table(
        &["rule", "check", "expected", "would fail with", "seen", "verdict"],
        checks.map(row).collect(),
    )
}

/// Machine and time of the checks.
pub fn place(instrument: Option<&Instrument>) -> String {
    let Some(Instrument { environment: e, .. }) = instrument else { return NOT_TRIED.to_owned() };
    format!("{}, {} cores, Linux {}, {}", e.cpu_model, e.cores, e.kernel, e.started_at)
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Holds => "holds".to_owned(),
        Verdict::Fails => "**fails**".to_owned(),
        Verdict::Skipped(why) => format!("skipped: {why}"),
        Verdict::CannotTell(why) => why.clone(),
    }
}

fn table(titles: &[&str], rows: Vec<String>) -> String {
    if rows.is_empty() {
        return NOT_TRIED.to_owned();
    }
    line(titles) + &line(&vec!["---"; titles.len()]) + &rows.concat()
}

/// One row; characters that would end a cell are escaped or removed.
fn line(cells: &[&str]) -> String {
    let cell =
        |text: &&str| text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ");
    format!("| {} |\n", cells.iter().map(cell).collect::<Vec<_>>().join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_told_in_words() {
        let instrument = fixture::instrument();
        let said = |what: &str| field(Some(&instrument), "coordinated-omission", what).unwrap();
        assert_eq!(said("wrong"), "0.2 ms");
        assert_eq!(said("wrong-how"), "timed from the send");
        assert_eq!(said("right"), "1,380 ms");
        assert_eq!(said("verdict"), "holds");
        // A check without a wrong way.
        assert_eq!(field(Some(&instrument), "littles-law", "wrong").unwrap(), NOT_TRIED);
        assert!(field(Some(&instrument), "littles-law", "speed").unwrap_err().contains("speed"));
    }

    #[test]
    fn what_was_not_tried_says_so_and_what_nobody_knows_is_a_slip() {
        assert_eq!(field(None, "send-lag", "measured").unwrap(), NOT_TRIED);
        assert_eq!(of_rule(None, 5), NOT_TRIED);
        assert_eq!(all(None), NOT_TRIED);
        assert_eq!(place(None), NOT_TRIED);
        assert!(field(None, "send-lags", "measured").unwrap_err().contains("send-lag"));
        assert!(field(None, "send-lag", "colour").is_err());
    }

    #[test]
    fn tables_hold_the_checks_of_their_rule() {
        let instrument = fixture::instrument();
        let rule = of_rule(Some(&instrument), 5);
        let expected = "| what | the wrong way | said | the right way | said | verdict |\n\
                        | --- | --- | --- | --- | --- | --- |\n\
                        | a stall is seen | timed from the send | 0.2 ms | timed from the due \
                        time | 1,380 ms | holds |\n";
        assert_eq!(rule, expected);
        // Without two ways the measured text is on the right, and a bar in a text does not end the
        // cell.
        let rule = of_rule(Some(&instrument), 4);
        assert!(rule.contains("| 1.00 \\| 0.99 | skipped: one core only |"), "{rule}");
        assert_eq!(all(Some(&instrument)).lines().count(), 4);
        assert_eq!(of_rule(Some(&instrument), 9), NOT_TRIED);
    }
}
