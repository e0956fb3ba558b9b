//! Bodies of requests that adjust a subscription, and their answers.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::api_adjust_subscription);
