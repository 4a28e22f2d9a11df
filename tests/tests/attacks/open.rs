//! Which ways are open, and the comparison with what happened.

use anyhow::{Result, ensure};
use tidegate_attacks::{ATTACKS, Layer, Outcome, Row};

/// Ways that are open, and why; with the agent alive and after it was killed alike. Whoever closes one takes it from here.
const OPEN: &[(&str, &str)] = &[];

/// An error that lists each row that is not what it should be. This kernel takes LSM programs, and asks by the names of Unix
/// sockets, or not.
pub(crate) fn compare(rows: &[Row], (lsm, names): (bool, bool)) -> Result<()> {
    let mut wrong = Vec::new();
    for row in rows {
        let open = open(row, lsm, names);
        let known = open.map_or(String::new(), |why| format!(" [known to be open: {why}]"));
        println!("{:<26} {}{known}", row.name, row.outcome);
        let problem = match (&row.outcome, open) {
            (Outcome::Passed { .. }, None) => "got through",
            (Outcome::Stopped { .. }, Some(_)) => "is stopped, and the table says that it is open",
            (Outcome::Inexpressible { .. }, None) if !may_be_missing(row) => "could not be tried",
            _ => continue,
        };
        wrong.push(format!("{} ({}) {problem}: {}", row.name, row.tries, row.outcome));
    }
    ensure!(wrong.is_empty(), "{} of {} attacks:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    Ok(())
}

fn open(row: &Row, lsm: bool, names: bool) -> Option<&'static str> {
    let listed = OPEN.iter().find(|(name, _)| *name == row.name).map(|(_, why)| *why);
    listed.or(match row.layer {
        Layer::Shield if !lsm => Some("this kernel takes no LSM programs"),
        Layer::Names if !lsm && !names => Some("this kernel asks nobody by the names of Unix sockets"),
        Layer::Outside => Some("nothing closes it"),
        _ => None,
    })
}

/// Some kernels lack what it needs.
fn may_be_missing(row: &Row) -> bool {
    ATTACKS.iter().any(|attack| attack.name == row.name && attack.needs.is_some())
}
