//! The command line of Dormouse: who is alive, what is written, and whether the relay is well.
//!
//! Results go to standard output, one line or one JSON object each; everything else goes to standard error. The exit
//! code says who has to act: 0 nobody, 1 the relay refused, 2 the command was wrong, 3 no relay was reached.

mod args;
mod backup;
mod doctor;
mod failure;
mod follow;
mod keys;
mod mail;
mod members;
mod progress;
mod screen;
mod show;
mod terminal;
mod token;
mod top;

use std::process::ExitCode;

use clap::Parser as _;
use dormouse::SendOptions;

use args::{Args, TokenVerb, Verb};
use failure::Failure;
use screen::Screen;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let url = args.target.url().to_owned();
    match run(args).await {
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("dormouse: {}", failure.advice(&url));
            failure.code()
        }
    }
}

async fn run(args: Args) -> Result<(), Failure> {
    let Args { target, json, verb } = args;
    let screen = Screen { json };
    // The doctor looks at the settings itself: that they are wrong may be what it finds.
    if let Verb::Doctor = verb {
        return doctor::examine(screen, &target).await;
    }
    // Makes something for a relay, and asks none.
    if let Verb::Token { verb: TokenVerb::New { scope, role } } = &verb {
        return token::new(screen, scope, *role);
    }
    // A file is looked at, or handed to the program that keeps the log.
    if let Verb::Restore { file, check } = &verb {
        return if *check { backup::check(screen, file) } else { backup::restore(file) };
    }
    let relay = target.relay()?;
    match verb {
        Verb::Doctor | Verb::Token { .. } | Verb::Restore { .. } => Ok(()),
        Verb::Backup { file } => backup::take(screen, &relay, &file).await,
        Verb::Members { filter, state, full } => members::list(screen, &relay, filter, state, full).await,
        Verb::Top { filter, every, once } => {
            // It waits for three answers at once, which takes more room than the stack is meant for.
            follow::until_ended(Box::pin(top::run(screen, &relay, filter, every, once))).await
        }
        Verb::Explain { node } => members::explain(screen, &relay, node).await,
        Verb::Get { paths } => keys::get(screen, &relay, &paths).await,
        Verb::Push { path, change } => keys::push(screen, &relay, path, change).await,
        Verb::Send { node, payload, id, ttl, sender } => {
            mail::send(screen, &relay, node, payload, id.as_ref(), SendOptions { ttl, sender }).await
        }
        Verb::Consume { path, name, follow: waits } => {
            follow::until_ended(mail::consume(screen, &relay, &path, &name, waits)).await
        }
        Verb::Watch { filter, activity, all } => {
            follow::until_ended(follow::members(screen, &relay, filter, activity, all)).await
        }
        Verb::Tail { collection, all } => {
            follow::until_ended(follow::rows(screen, &relay, &collection, all)).await
        }
    }
}
