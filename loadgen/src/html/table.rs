//! Tables: of figures, and of names with their values.

use super::markup::Element;

/// Figures in columns; the first column names the row.
pub fn figures(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Element {
    let head = header.iter().map(|name| Element::new("th").with("scope", "col").text(name));
    let rows = rows.into_iter().map(|row| {
        let cells = row.into_iter().enumerate().map(|(column, cell)| match column {
            0 => Element::new("th").with("scope", "row").text(cell),
            _ => Element::new("td").text(cell),
        });
        Element::new("tr").children(cells)
    });
    let table = Element::new("table")
        .class("figures")
        .child(Element::new("thead").child(Element::new("tr").children(head)))
        .child(Element::new("tbody").children(rows));
    // What scrolls is reached from the keyboard too.
    Element::new("div").class("scroll").with("tabindex", 0).child(table)
}

/// Names and values.
pub fn settings<N: AsRef<str>>(rows: impl IntoIterator<Item = (N, String)>) -> Element {
    let rows = rows.into_iter().map(|(name, value)| {
        Element::new("tr")
            .child(Element::new("th").with("scope", "row").text(name.as_ref()))
            .child(value_of(&value))
    });
    Element::new("table").class("settings").child(Element::new("tbody").children(rows))
}

/// A value whose flags and ranges are not broken at their hyphens, as a browser otherwise would.
fn value_of(value: &str) -> Element {
    value.split(' ').enumerate().fold(Element::new("td"), |cell, (index, word)| {
        let cell = if index > 0 { cell.text(' ') } else { cell };
        if word.contains('-') { cell.child(Element::new("span").text(word)) } else { cell.text(word) }
    })
}

/// Something that is shown when it is asked for.
pub fn details(summary: &str, content: Element) -> Element {
    Element::new("details").child(Element::new("summary").text(summary)).child(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_one_word() {
        let text = value_of("serve --data-dir d").to_string();
        assert_eq!(text, "<td>serve <span>--data-dir</span> d</td>");
    }
}
