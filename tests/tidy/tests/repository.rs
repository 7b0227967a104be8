//! The repository keeps its house rules. One test for each rule; its findings are the failure.

use fastmq_tidy::tree::{Finding, Tree};
use fastmq_tidy::{documents, manifests, places, sources};

fn check(rule: fn(&Tree) -> Vec<Finding>) {
    let tree = Tree::repository().expect("the repository can be read");
    assert!(
        tree.file("Cargo.toml").is_some(),
        "the tree is not the repository"
    );
    let findings: Vec<String> = rule(&tree).iter().map(Finding::to_string).collect();
    assert!(
        findings.is_empty(),
        "{} found:\n{}",
        findings.len(),
        findings.join("\n")
    );
}

macro_rules! rules {
    ($($module:ident: $($rule:ident),+;)+) => {
        $($(
            #[test]
            fn $rule() {
                check($module::$rule);
            }
        )+)+
    };
}

rules! {
    places: unsafe_stays_in_its_places, unsafe_says_why, safe_crates_forbid_unsafe,
        time_comes_from_the_driver;
    sources: names_say_something, files_stay_short, lines_stay_narrow,
        files_say_what_they_are_for, nothing_unwraps, notes_name_their_issue,
        nothing_names_a_machine;
    manifests: arrows_go_down, dependencies_have_a_reason, reasons_have_a_dependency;
    documents: links_resolve, code_blocks_are_files, commands_exist, changelog_has_unreleased,
        symbols_are_in_the_header;
}
