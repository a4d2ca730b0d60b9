//! The rules of users as tables, and what must hold for any text.

use proptest::prelude::*;

use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\n\
    app:x:1000:3000::/home/app:/bin/sh\nnohome:x:1001:1001::relative:\nbig:x:99999999999:1::/:\n\
    neg:x:-1:0::/:\nempty:x:::/:\ntwice:x:7:7::/first:\ntwice:x:8:8::/second:\nctl:x:9:9::/h\tx:\n";
const GROUP: &str = "root:x:0:root\nstaff:x:50000:app,other\nwheel:x:10:other, app\nweird:x:4294967296:app\n\
    app:x:3000:\nno-members:x:5\n";

fn image(user: &str) -> Result<ResolvedUser, UserError> {
    resolve(&UserChoice::default(), user, PASSWD, GROUP)
}

fn ids(user: Result<ResolvedUser, UserError>) -> (u32, u32) {
    let user = user.unwrap();
    (user.uid, user.gid)
}

#[test]
fn users_of_images() {
    for (text, expected) in [
        ("", (0, 0)),
        ("0", (0, 0)),
        ("root", (0, 0)),
        ("app", (1000, 3000)),
        ("1000", (1000, 3000)),
        ("app:staff", (1000, 50000)),
        ("app:7", (1000, 7)),
        ("4242", (4242, 0)),
        ("4242:4243", (4242, 4243)),
        ("2147483647:2147483647", (MAX_ID, MAX_ID)),
        ("twice", (7, 7)),
    ] {
        assert_eq!(ids(image(text)), expected, "{text:?}");
    }
}

#[test]
fn what_is_no_user_is_an_error_and_never_root() {
    let out_of_range = [
        "-1",
        "2147483648",
        "4294967295",
        "4294967296",
        "100000000000000000000",
        "+5",
        "-0",
        "0:-1",
        "0:4294967296",
    ];
    for text in out_of_range {
        assert!(matches!(image(text), Err(UserError::OutOfRange { .. })), "{text:?}: {:?}", image(text));
    }
    for text in ["1:", ":", ":5", "a:b:c", "1:2:3", "a b", "app\n", "\0", "-x", " 0"] {
        assert!(matches!(image(text), Err(UserError::Malformed { .. })), "{text:?}: {:?}", image(text));
    }
    for text in ["0x0", "nobody", "#", "broken-name"] {
        assert!(matches!(image(text), Err(UserError::NoSuchUser { .. })), "{text:?}: {:?}", image(text));
    }
    for text in ["big", "neg", "empty"] {
        assert!(matches!(image(text), Err(UserError::OutOfRange { .. })), "{text:?}: {:?}", image(text));
    }
    assert!(matches!(image("app:nogroup"), Err(UserError::NoSuchGroup { .. })));
    assert!(matches!(image("app:weird"), Err(UserError::OutOfRange { .. })));
    assert!(image("broken").is_err());
}

#[test]
fn the_request_goes_before_the_image() {
    let uid = UserChoice { uid: Some(1000), ..Default::default() };
    assert_eq!(ids(resolve(&uid, "root", PASSWD, GROUP)), (1000, 3000));
    let with_group = UserChoice { gid: Some(12), ..uid.clone() };
    assert_eq!(ids(resolve(&with_group, "root", PASSWD, GROUP)), (1000, 12));
    let both = UserChoice { username: "root".into(), ..uid.clone() };
    assert_eq!(ids(resolve(&both, "", PASSWD, GROUP)), (1000, 3000));
    let name = UserChoice { username: "app".into(), ..Default::default() };
    assert_eq!(ids(resolve(&name, "root", PASSWD, GROUP)), (1000, 3000));
    let unknown = UserChoice { username: "app:staff".into(), ..Default::default() };
    assert!(matches!(resolve(&unknown, "", PASSWD, GROUP), Err(UserError::Malformed { .. })));
}

#[test]
fn a_group_without_a_user_is_refused_also_where_the_image_has_a_user() {
    let choice = UserChoice { gid: Some(5), ..Default::default() };
    assert_eq!(resolve(&choice, "app", PASSWD, GROUP), Err(UserError::GroupWithoutUser { gid: 5 }));
}

#[test]
fn ids_of_the_request_are_bounded() {
    for choice in [
        UserChoice { uid: Some(MAX_ID + 1), ..Default::default() },
        UserChoice { uid: Some(1), gid: Some(u32::MAX), ..Default::default() },
        UserChoice { supplemental_groups: vec![u32::MAX], ..Default::default() },
    ] {
        assert!(matches!(resolve(&choice, "", PASSWD, GROUP), Err(UserError::OutOfRange { .. })));
    }
}

#[test]
fn groups_are_merged_or_strict_sorted_and_hold_the_primary() {
    let merge = UserChoice { uid: Some(1000), supplemental_groups: vec![77, 10, 77], ..Default::default() };
    let strict = UserChoice { groups_policy: GroupsPolicy::Strict, ..merge.clone() };
    let gids = |choice| resolve(choice, "", PASSWD, GROUP).unwrap().additional_gids;
    assert_eq!(gids(&merge), [10, 77, 3000, 50000]);
    assert_eq!(gids(&strict), [10, 77, 3000]);
    let nameless = UserChoice { uid: Some(4242), ..Default::default() };
    assert_eq!(gids(&nameless), [0]);
}

#[test]
fn homes() {
    assert_eq!(image("app").unwrap().home, "/home/app");
    assert_eq!(image("nohome").unwrap().home, "/");
    assert_eq!(image("4242").unwrap().home, "/");
    assert!(matches!(image("ctl"), Err(UserError::UnsafeHome { uid: 9, .. })));
    assert_eq!(resolve(&UserChoice::default(), "", "", "").unwrap().home, "/");
}

#[test]
fn giant_files_are_refused() {
    let giant = "#".repeat(DATABASE_LIMIT + 1);
    let choice = UserChoice::default();
    assert_eq!(resolve(&choice, "", &giant, ""), Err(UserError::TooLarge { file: "/etc/passwd" }));
    assert_eq!(resolve(&choice, "", "", &giant), Err(UserError::TooLarge { file: "/etc/group" }));
}

#[test]
fn too_many_groups_are_refused() {
    let choice = UserChoice { supplemental_groups: (1..=65_536).collect(), ..Default::default() };
    assert_eq!(resolve(&choice, "", "", ""), Err(UserError::TooManyGroups { uid: 0 }));
}

proptest! {
    #[test]
    fn only_zero_and_roots_names_are_root(text in "[-+0-9a-fx:]{1,24}") {
        if let Ok(user) = image(&text)
            && user.uid == 0
        {
            let name = text.split(':').next().unwrap();
            prop_assert!(name.bytes().all(|b| b == b'0'), "{} became root", text);
        }
    }

    #[test]
    fn no_text_panics(user in ".{0,40}", passwd in "([a-z:0-9\n#]|\\PC){0,200}", group in "([a-z:,0-9\n]){0,200}") {
        if let Ok(found) = resolve(&UserChoice::default(), &user, &passwd, &group) {
            prop_assert!(found.uid <= MAX_ID && found.gid <= MAX_ID);
            prop_assert!(found.additional_gids.contains(&found.gid));
            prop_assert!(!found.home.contains(char::is_control));
        }
    }

    #[test]
    fn numbers_above_the_range_are_errors(number in (u64::from(MAX_ID) + 1)..u64::MAX) {
        let refused = matches!(image(&number.to_string()), Err(UserError::OutOfRange { .. }));
        prop_assert!(refused);
    }
}
