//! What a compiler tells an author whose module is wrong: in the author's words, at the author's tokens.

#[test]
fn an_error_in_a_module_reads_like_one_in_the_authors_own_code() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
