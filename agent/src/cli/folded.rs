//! Lines that are folded here and not by the terminal, where the rest of a long one begins as our own lines do.

use terminal_size::{Width, terminal_size};

/// Before what goes on from the line above. Neither a line of ours nor a marked one of a text begins so.
const GOES_ON: &str = "    > ";
/// Fewest columns that are folded to: terminals of less show nothing that could be mistaken.
const FEWEST: usize = 24;

/// The columns that the reader has; none where nobody reads on a terminal.
pub(super) fn columns() -> Option<usize> {
    terminal_size().map(|(Width(columns), _)| usize::from(columns).max(FEWEST))
}

/// The text, with no line longer than this many columns. Every character is there, and each fold is marked.
pub(super) fn folded(text: &str, columns: usize) -> String {
    let (mut folded, mut used) = (String::with_capacity(text.len()), 0);
    for character in text.chars() {
        if character != '\n' && used + width(character, used) > columns {
            folded.push('\n');
            folded.push_str(GOES_ON);
            used = GOES_ON.len();
        }
        used = if character == '\n' { 0 } else { used + width(character, used) };
        folded.push(character);
    }
    folded
}

/// At most so many columns does a terminal give this character.
fn width(character: char, used: usize) -> usize {
    match character {
        '\t' => 8 - used % 8,
        _ if character.is_ascii() => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a terminal shows it.
    fn rows(text: &str, columns: usize) -> Vec<String> {
        text.lines()
            .flat_map(|line| {
                let characters: Vec<char> = line.chars().collect();
                characters.chunks(columns).map(|row| row.iter().collect()).collect::<Vec<String>>()
            })
            .collect()
    }

    #[test]
    fn no_text_passes_for_a_line_of_ours_by_being_long() {
        for columns in [24, 80, 200] {
            let padding = " ".repeat(columns - "    | DELETE /*".len());
            let hostile =
                format!("will run\n    | DELETE /*{padding}    with database: scratch*/\nhappened\n");
            assert!(rows(&hostile, columns).iter().any(|row| row.starts_with("    with")), "no attack");
            let shown = rows(&folded(&hostile, columns), columns);
            assert!(shown.iter().all(|row| !row.starts_with("    with")), "{shown:?}");
            assert_eq!(shown.first().zip(shown.last()), Some((&"will run".into(), &"happened".into())));
        }
    }

    #[test]
    fn nothing_is_lost_and_short_lines_stay() {
        let text = "a\n\nbcdé\tfgh\n";
        assert_eq!(folded(text, 80), text);
        let long = format!("{}顧客{}", "x".repeat(60), "y".repeat(60));
        let shown = folded(&long, 40);
        assert_eq!(shown.split("\n    > ").collect::<String>(), long);
        assert!(shown.lines().all(|line| line.chars().map(|one| width(one, 0)).sum::<usize>() <= 40));
    }
}
