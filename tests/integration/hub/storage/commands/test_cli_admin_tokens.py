"""`porten-hub admin-tokens`: a secret shown once, and who the log says made it."""

from hub.keys import ADMIN_TOKEN_PREFIX, hash_secret, looks_valid


def test_a_token_is_made_shown_once_listed_and_ended(hub, ask):
    made = hub("admin-tokens", "create", "--name", "ci", "--role", "admin", "--expires", "30d")
    secret = made.stdout.strip().splitlines()[-1]
    assert looks_valid(secret, ADMIN_TOKEN_PREFIX)
    token = ask(lambda storage: storage.admin_tokens.by_hash(hash_secret(secret)))
    assert (token.name, token.role, token.expires_at - token.created_at) == ("ci", "admin", 30 * 86_400)
    listed = hub("admin-tokens", "list").output
    assert token.id in listed
    assert token.prefix in listed
    assert secret not in listed
    hub("admin-tokens", "revoke", token.id)
    assert "revoked" in hub("admin-tokens", "list").output
    events = ask(lambda storage: storage.audit.page(actions=["admin_token.created", "admin_token.revoked"]))
    assert [(event.actor, event.subject) for event in events] == [("cli", token.id)] * 2


def test_what_cannot_be_is_said_with_the_remedy(hub):
    assert "porten-hub admin-tokens create" in hub("admin-tokens", "list").output
    assert "is not one of" in hub("admin-tokens", "create", "--name", "a", "--role", "king", status=2).output
    too_long = hub("admin-tokens", "create", "--name", "a", "--expires", "999d", status=2)
    assert "within 366 days" in too_long.output
    assert "atk_…" in hub("admin-tokens", "revoke", "ci", status=2).output
