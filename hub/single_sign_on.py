"""Signing in through the organisation's identity provider.

Owns what becomes of an identity that a provider vouches for: the account it is linked to, a new one where the
operator's rules say so, or a refusal that says what to do. Accounts are found by issuer and subject, never by
e-mail address alone: an address may be given to somebody else. Must not know HTTP, cookies or pages.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hub.errors import AlreadyExists, IdentityRefused, NotAllowed, NotFound
from hub.identity_provider import Attempt, IdentityProvider
from hub.sso_rules import Rule, first_match, subject_of, verified_email
from hub.storage.records import Account
from hub.storage.repositories import Storage


@dataclass(frozen=True, slots=True)
class EntryRules:
    """Whom the provider's word lets in.

    Attributes:
        name: what people call the provider, on buttons.
        claim: the claim that the rules look at.
        rules: the first that fits counts; none lets nobody in who has no account yet.
        domains: of e-mail addresses that may get an account; none is any.
    """

    name: str
    claim: str
    rules: tuple[Rule, ...]
    domains: tuple[str, ...]


class SingleSignOn:
    """Sign-in through one provider.

    Args:
        provider: who is asked.
        rules: whom it lets in.
        storage: where accounts are.
        clock: UTC seconds since the epoch.
    """

    def __init__(
        self, provider: IdentityProvider, entry: EntryRules, storage: Storage, clock: Callable[[], float]
    ) -> None:
        self._provider = provider
        self._entry = entry
        self._storage = storage
        self._clock = clock

    @property
    def name(self) -> str:
        """What people call the provider."""
        return self._entry.name

    @property
    def issuer(self) -> str:
        """What the provider calls itself."""
        return self._provider.client.issuer

    async def begin(self, redirect_uri: str) -> tuple[Attempt, str]:
        """Draw what ties a sign-in together, and where the browser goes with it.

        Raises:
            IdentityProviderUnavailable: the provider cannot be asked.
        """
        attempt = Attempt(*(secrets.token_urlsafe(32) for _ in range(3)))
        return attempt, await self._provider.authorization_url(attempt, redirect_uri)

    async def sign_in(self, attempt: Attempt, code: str, redirect_uri: str) -> Account:
        """The account that somebody may use whom the provider vouches for.

        Raises:
            IdentityProviderUnavailable: the provider cannot be asked.
            IdentityRefused: it does not vouch for them, or no rule lets them in.
        """
        claims, subject = await self._vouched(attempt, code, redirect_uri)
        account = await self._storage.identities.account(self.issuer, subject)
        if account is None:
            return await self._provisioned(claims, subject)
        # An account with a password was linked by its owner: its role is what its organisation gave it.
        return account if account.has_password else await self._followed(account, claims)

    async def link(self, account: Account, attempt: Attempt, code: str, redirect_uri: str) -> None:
        """Let an identity sign in to an account whose owner has proved both.

        Raises:
            IdentityProviderUnavailable: the provider cannot be asked.
            IdentityRefused: it does not vouch for them, or the identity signs in to another account.
        """
        _, subject = await self._vouched(attempt, code, redirect_uri)
        try:
            await self._storage.identities.link(account.id, self.issuer, subject, now=self._clock())
        except AlreadyExists:
            raise IdentityRefused(f"this identity of {self.name} signs in to an account already") from None

    async def _vouched(self, attempt: Attempt, code: str, redirect_uri: str) -> tuple[Mapping[str, Any], str]:
        claims = await self._provider.claims(attempt, code, redirect_uri, wanted=self._entry.claim)
        subject = subject_of(claims)
        if subject is None:
            raise IdentityRefused("the identity provider does not say who you are")
        return claims, subject

    async def _provisioned(self, claims: Mapping[str, Any], subject: str) -> Account:
        email = verified_email(claims, self._entry.domains)
        if email is None:
            raise IdentityRefused(
                f"{self.name} gave no verified e-mail address, or one of a domain that may not sign in here"
            )
        rule = self._rule(claims)
        organisation = await self._storage.organisations.by_name(rule.organisation)
        if organisation is None:
            raise IdentityRefused("the operator's rule for you names an organisation that is not there")
        try:
            return await self._storage.identities.provision(
                organisation.id,
                email=email,
                role=rule.role,
                issuer=self.issuer,
                subject=subject,
                now=self._clock(),
            )
        except AlreadyExists:
            raise IdentityRefused(
                f"your e-mail address has an account here already: sign in with its password, then connect "
                f"{self.name} on your account page"
            ) from None

    async def _followed(self, account: Account, claims: Mapping[str, Any]) -> Account:
        """An account that the rules made goes on following them, at each sign-in."""
        rule = self._rule(claims)
        organisation = await self._storage.organisations.by_name(rule.organisation)
        if organisation is None or organisation.id != account.organisation_id:
            raise IdentityRefused(
                "the operator's rules put you into another organisation now: have your account here removed"
            )
        if account.is_operator or account.role is rule.role:  # operators are made by command alone
            return account
        try:
            return await self._storage.members.change_role(account.id, rule.role, by=None)
        except (NotAllowed, NotFound) as error:
            raise IdentityRefused(f"your role is another one now, but {error}") from None

    def _rule(self, claims: Mapping[str, Any]) -> Rule:
        rule = first_match(self._entry.rules, claims.get(self._entry.claim))
        if rule is None:
            raise IdentityRefused(f"{self.name} vouches for you, but no rule of the operator lets you in")
        return rule
