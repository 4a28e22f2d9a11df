//! Questions and answers, the same on every store.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of the tests that fails fails the test"
)]

mod answers;
mod common;
mod damage;
mod grants;
mod pressure;
mod races;
mod restarts;
mod told;
mod versions;
mod webhooks;

/// Each test on each store.
macro_rules! on_every_store {
    ($($module:ident: $($name:ident),+;)+) => {
        mod sqlite {
            $($(
                #[tokio::test]
                async fn $name() {
                    crate::$module::$name(&crate::common::sqlite().await).await;
                }
            )+)+
        }
        mod postgres {
            $($(
                #[tokio::test]
                #[ignore = "needs PostgreSQL: cargo xtask test e2e"]
                async fn $name() {
                    crate::$module::$name(&crate::common::postgres().await).await;
                }
            )+)+
        }
    };
}

on_every_store! {
    answers:
        a_yes_lets_it_run_and_a_look_is_told,
        a_no_refuses_with_its_reason,
        nobody_answers_their_own_question,
        an_account_and_a_login_count_as_one_approver,
        accounts_are_told_apart_where_a_login_is_not,
        an_account_whose_name_cannot_be_told_may_be_that_of_any_login,
        who_asks_from_an_account_does_not_answer_by_a_login_that_names_it,
        an_issuer_is_one_by_whatever_name,
        a_question_tells_nobody_what_its_masks_hide,
        a_stranger_neither_sees_nor_answers,
        accounts_of_another_host_count_for_nothing,
        the_askers_number_on_another_host_is_not_the_asker,
        as_many_must_agree_as_the_rule_says,
        every_rule_that_holds_must_be_met,
        a_reason_is_asked_for_where_the_rule_says_so,
        an_unanswered_question_expires,
        glass_is_broken_with_a_reason_and_reviewed_by_somebody_else;
    grants:
        a_yes_counts_once_and_for_these_bytes_alone,
        a_yes_for_an_action_ends_with_its_session,
        a_yes_ends_with_its_session_unless_its_rule_says_more,
        a_yes_that_nobody_has_goes_to_the_very_same_alone,
        a_rule_that_came_to_hold_something_else_asks_again,
        a_yes_for_a_shape_counts_until_it_is_revoked,
        whoever_relies_on_a_yes_is_told_that_it_was_taken_back,
        what_ended_a_yes_is_told_to_whoever_has_not_used_it_yet,
        a_yes_for_a_resource_ends_with_its_time,
        a_rule_that_changed_asks_again,
        a_yes_is_no_other_principals;
    restarts:
        a_restart_loses_no_question_and_no_yes,
        a_question_left_standing_is_taken_up,
        nothing_but_the_very_same_takes_a_question_up,
        who_takes_a_question_up_is_shown,
        who_agreed_to_what_another_program_asks_now_agrees_anew,
        a_withdrawn_question_leaves_no_yes,
        letters_are_kept_until_they_are_taken;
    versions:
        an_upgrade_loses_no_question_no_yes_and_no_letter,
        an_upgrade_of_many_questions_goes_on_where_it_was_cut_off,
        a_store_of_this_version_is_opened_again_as_it_is,
        a_store_of_a_later_agent_is_left_alone;
    damage:
        a_question_that_cannot_be_read_is_told_and_hides_no_other,
        a_yes_that_cannot_be_read_is_none;
    webhooks:
        what_happens_is_told_once_and_signed,
        a_letter_that_was_not_taken_comes_again_under_its_id,
        a_restart_loses_no_letter,
        a_dead_receiver_holds_up_neither_answers_nor_other_receivers,
        a_letter_that_nobody_takes_is_given_up,
        a_receiver_that_another_authority_vouches_for_is_told_nothing,
        a_chat_gets_a_message_at_its_secret_address,
        what_a_clock_that_was_ahead_wrote_is_told_at_once,
        strangers_cause_no_letters;
    races:
        of_a_yes_and_a_cancel_at_once_one_comes_first,
        two_who_answer_at_once_are_counted_each,
        a_yes_that_counts_once_goes_to_one_of_two,
        a_yes_that_lasts_is_all_its_sessions_however_much_comes_at_once,
        revoking_at_once_with_use_lets_it_run_or_not,
        hundreds_wait_at_once,
        who_asks_while_another_cancels_the_same_is_not_cancelled;
    told:
        letters_about_one_asker_hold_up_neither_alerts_nor_the_others,
        what_an_asker_has_written_takes_no_room_of_what_people_answer,
        who_asks_and_one_who_answers_take_no_room_of_others_answers,
        what_was_cancelled_before_it_was_told_is_not_told,
        who_does_not_hear_of_cancels_is_not_told_of_what_was_cancelled_either,
        of_what_people_answered_an_accounts_newest_are_kept;
    pressure:
        no_more_wait_than_may,
        root_in_a_container_takes_nobody_s_places_with_many_user_ids,
        nobody_asks_more_within_a_minute_than_may,
        who_asks_and_cancels_hides_nobody_elses_question,
        who_asks_much_is_not_all_that_is_listed,
        a_question_is_listed_in_short_and_shown_whole,
        what_is_too_long_to_be_shown_is_not_asked,
        a_clock_that_is_set_back_keeps_nobody_from_asking,
        who_has_identities_has_no_more_room_than_others,
        who_asks_and_cancels_makes_nobody_forget_what_was_answered,
        a_brief_is_small_however_large_its_asker_makes_it,
        who_comes_back_all_the_time_is_told_to_wait,
        old_questions_are_forgotten_and_what_counts_is_kept;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn an_answer_through_another_agent_of_the_fleet_counts() {
    restarts::an_answer_through_another_agent_counts(&common::postgres().await).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test e2e"]
async fn a_host_whose_clock_is_ahead_forgets_nothing_that_the_fleet_waits_for() {
    told::a_clock_that_is_ahead_forgets_nothing(&common::postgres().await).await;
}
