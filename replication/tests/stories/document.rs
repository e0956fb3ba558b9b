//! `docs/OPERATIONS.md` says what the table of topic configs says.

use corrente_replication::topic_config::TOPIC_CONFIGS;

#[test]
fn every_topic_config_is_described() {
    let document = include_str!("../../../docs/OPERATIONS.md");
    for spec in TOPIC_CONFIGS {
        let row = format!("| `{}` | {} | {} |\n", spec.key, spec.default, spec.doc);
        assert!(document.contains(&row), "the document has no row\n{row}");
    }
}
