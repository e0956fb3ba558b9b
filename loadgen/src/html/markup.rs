//! Elements of HTML and SVG, balanced and escaped by construction.
//!
//! Names and raw text are `'static`: what a report holds gets into a page through [`Element::text`] and the values of
//! attributes alone, and both escape it.

use std::fmt::{self, Display, Write};

/// An element with what it holds so far.
#[derive(Debug, Clone)]
pub struct Element {
    name: &'static str,
    attributes: String,
    content: String,
}

/// Elements without an end, the few that a page needs.
const VOID: [&str; 1] = ["meta"];

impl Element {
    /// An empty one.
    pub fn new(name: &'static str) -> Element {
        Element { name, attributes: String::new(), content: String::new() }
    }

    /// Adds an attribute; each at most once.
    pub fn with(mut self, name: &'static str, value: impl Display) -> Element {
        write!(self.attributes, " {name}=\"{}\"", Escaped(value))
            .expect("a string takes whatever is written");
        self
    }

    /// Adds the attribute `class`.
    pub fn class(self, class: impl Display) -> Element {
        self.with("class", class)
    }

    /// Adds text.
    pub fn text(mut self, text: impl Display) -> Element {
        write!(self.content, "{}", Escaped(text)).expect("a string takes whatever is written");
        self
    }

    /// Adds an element.
    pub fn child(mut self, child: Element) -> Element {
        write!(self.content, "{child}").expect("a string takes whatever is written");
        self
    }

    /// Adds several elements, or one that may be missing.
    pub fn children(self, children: impl IntoIterator<Item = Element>) -> Element {
        children.into_iter().fold(self, Element::child)
    }

    /// Adds text of our own as it is, which only a style sheet needs.
    pub fn raw(mut self, text: &'static str) -> Element {
        self.content.push_str(text);
        self
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Element { name, attributes, content } = self;
        if VOID.contains(name) {
            assert!(content.is_empty(), "<{name}> cannot hold {content}");
            return write!(f, "<{name}{attributes}>");
        }
        write!(f, "<{name}{attributes}>{content}</{name}>")
    }
}

/// Text that ends no element, no attribute and no reference.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| match character {
            '&' => self.0.write_str("&amp;"),
            '<' => self.0.write_str("&lt;"),
            '>' => self.0.write_str("&gt;"),
            '"' => self.0.write_str("&quot;"),
            '\'' => self.0.write_str("&#39;"),
            _ => self.0.write_char(character),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether every tag is closed in turn and no bare `<`, `>` or `"` is left in text. Knows as much of HTML as our
    /// own pages use: no comments, no scripts, attributes in double quotes.
    pub fn check_well_formed(page: &str) -> Result<(), String> {
        let mut rest = page.strip_prefix("<!DOCTYPE html>").unwrap_or(page);
        let mut open: Vec<&str> = Vec::new();
        while let Some(begin) = rest.find('<') {
            let (text, tag) = rest.split_at(begin);
            if text.contains('>') && open.last() != Some(&"style") {
                return Err(format!("a bare > in {text:?}"));
            }
            let end = tag.find('>').ok_or_else(|| format!("a tag without an end: {tag:.40}"))?;
            let (inner, behind) = (&tag[1..end], &tag[end + 1..]);
            rest = behind;
            if inner.matches('"').count() % 2 != 0 || inner.contains('<') {
                return Err(format!("not a tag: {inner}"));
            }
            let name = inner.split(' ').next().unwrap_or_default();
            match name.strip_prefix('/') {
                Some(name) if open.pop() == Some(name) => {}
                Some(name) => return Err(format!("</{name}> closes nothing")),
                None if VOID.contains(&name) => {}
                None => open.push(name),
            }
        }
        if open.is_empty() { Ok(()) } else { Err(format!("left open: {open:?}")) }
    }

    #[test]
    fn elements_hold_attributes_text_and_each_other() {
        let list = Element::new("ul").class("a").child(Element::new("li").text(1)).children(None);
        assert_eq!(list.to_string(), "<ul class=\"a\"><li>1</li></ul>");
        assert_eq!(Element::new("meta").with("charset", "utf-8").to_string(), "<meta charset=\"utf-8\">");
    }

    #[test]
    fn what_looks_like_markup_is_text() {
        let element = Element::new("p").with("title", "\"'><b").text("<script>alert('&')</script>");
        let expected =
            "<p title=\"&quot;&#39;&gt;&lt;b\">&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;</p>";
        assert_eq!(element.to_string(), expected);
    }

    #[test]
    fn the_checker_finds_what_is_wrong() {
        assert_eq!(check_well_formed("<!DOCTYPE html><p><b>x</b></p>"), Ok(()));
        for page in ["<p>", "<p></b>", "<p><b></p></b>", "</p>", "<p>a > b</p>", "<p a=\"x></p>", "<p"] {
            assert!(check_well_formed(page).is_err(), "{page}");
        }
    }

    proptest! {
        #[test]
        fn no_text_unbalances_a_page(text: String) {
            let page = Element::new("p").with("title", &text).child(Element::new("b").text(&text)).to_string();
            prop_assert_eq!(check_well_formed(&page), Ok(()), "{}", page);
        }
    }
}
