//! `#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(NAME, INSTEAD))]` above a function: while a test has broken the rule
//! `NAME`, the function returns `INSTEAD`, an expression that may use its arguments.
//!
//! A promise that no test can break is not tested. Shipped builds do not set the cfg, so they contain neither the attribute nor
//! this crate; the sources are the same. `tools/mutants` builds the cores with it and breaks every rule in turn.

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

/// See the crate's documentation.
///
/// # Panics
/// At compile time, when the attribute names no rule and expression, or is not on a function with a body.
#[proc_macro_attribute]
pub fn rule(attribute: TokenStream, function: TokenStream) -> TokenStream {
    let mut attribute = attribute.into_iter();
    let Some(TokenTree::Ident(name)) = attribute.next() else { panic!("expected rule(NAME, INSTEAD)") };
    assert!(
        matches!(attribute.next(), Some(TokenTree::Punct(comma)) if comma.as_char() == ','),
        "expected rule(NAME, INSTEAD)"
    );
    let instead: TokenStream = attribute.collect();
    let mut tokens: Vec<TokenTree> = function.into_iter().collect();
    let Some(TokenTree::Group(body)) = tokens.pop() else { panic!("rule {name} is not above a function") };
    assert_eq!(body.delimiter(), Delimiter::Brace, "rule {name} is above a function without a body");
    let mut mutated: TokenStream = format!("if crate::mutation::is({:?})", name.to_string()).parse().expect("tokens");
    let mut returned: TokenStream = "return".parse().expect("a token");
    returned.extend([TokenTree::Group(Group::new(Delimiter::Parenthesis, instead))]);
    returned.extend(";".parse::<TokenStream>().expect("a token"));
    mutated.extend([TokenTree::Group(Group::new(Delimiter::Brace, returned))]);
    mutated.extend(body.stream());
    tokens.push(TokenTree::Group(Group::new(Delimiter::Brace, mutated)));
    tokens.into_iter().collect()
}
