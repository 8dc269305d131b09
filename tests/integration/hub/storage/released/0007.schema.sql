CREATE TABLE accounts (
	id VARCHAR(40) NOT NULL,
	organisation_id VARCHAR(40) NOT NULL,
	email VARCHAR(254) NOT NULL,
	password_hash TEXT NOT NULL,
	role VARCHAR(16) NOT NULL,
	created_at DOUBLE NOT NULL,
	CONSTRAINT pk_accounts PRIMARY KEY (id),
	CONSTRAINT fk_accounts_organisation_id FOREIGN KEY(organisation_id) REFERENCES organisations (id),
	CONSTRAINT uq_accounts_email UNIQUE (email)
);
CREATE TABLE admin_tokens (
	id VARCHAR(40) NOT NULL,
	organisation_id VARCHAR(40) NOT NULL,
	name VARCHAR(100) NOT NULL,
	prefix VARCHAR(16) NOT NULL,
	hash VARCHAR(64) NOT NULL,
	role VARCHAR(16) NOT NULL,
	created_at DOUBLE NOT NULL,
	expires_at DOUBLE NOT NULL,
	revoked_at DOUBLE,
	last_used_at DOUBLE,
	CONSTRAINT pk_admin_tokens PRIMARY KEY (id),
	CONSTRAINT fk_admin_tokens_organisation_id FOREIGN KEY(organisation_id) REFERENCES organisations (id),
	CONSTRAINT uq_admin_tokens_hash UNIQUE (hash)
);
CREATE TABLE api_keys (
	id VARCHAR(40) NOT NULL,
	organisation_id VARCHAR(40) NOT NULL,
	name VARCHAR(100) NOT NULL,
	prefix VARCHAR(16) NOT NULL,
	hash VARCHAR(64) NOT NULL,
	fleet VARCHAR(16) NOT NULL,
	regions TEXT NOT NULL,
	minimum_trust VARCHAR(16) NOT NULL,
	models TEXT,
	created_at DOUBLE NOT NULL,
	expires_at DOUBLE,
	revoked_at DOUBLE,
	last_used_at DOUBLE, requests_per_minute INTEGER, tokens_per_minute BIGINT, concurrent_requests INTEGER, monthly_tokens BIGINT, previous_prefix VARCHAR(16), previous_hash VARCHAR(64), previous_expires_at DOUBLE, previous_used_at DOUBLE,
	CONSTRAINT pk_api_keys PRIMARY KEY (id),
	CONSTRAINT fk_api_keys_organisation_id FOREIGN KEY(organisation_id) REFERENCES organisations (id),
	CONSTRAINT uq_api_keys_hash UNIQUE (hash)
);
CREATE TABLE audit_checkpoints (
	sequence BIGINT NOT NULL,
	root BOOLEAN NOT NULL,
	time_ms BIGINT NOT NULL,
	token TEXT NOT NULL,
	CONSTRAINT pk_audit_checkpoints PRIMARY KEY (sequence, root)
);
CREATE TABLE audit_events (
	sequence BIGINT NOT NULL,
	time_ms BIGINT NOT NULL,
	organisation_id VARCHAR(40),
	actor VARCHAR(40) NOT NULL,
	action VARCHAR(64) NOT NULL,
	subject VARCHAR(100) NOT NULL,
	details TEXT NOT NULL,
	batch VARCHAR(100),
	previous_hash VARCHAR(64) NOT NULL,
	hash VARCHAR(64) NOT NULL,
	CONSTRAINT pk_audit_events PRIMARY KEY (sequence)
);
CREATE TABLE audit_head (
	id INTEGER NOT NULL,
	sequence BIGINT NOT NULL,
	hash VARCHAR(64) NOT NULL,
	CONSTRAINT pk_audit_head PRIMARY KEY (id)
);
CREATE TABLE device_enrollments (
	id VARCHAR(40) NOT NULL,
	device_code_hash VARCHAR(64) NOT NULL,
	user_code_hash VARCHAR(64) NOT NULL,
	public_key VARCHAR(64) NOT NULL,
	name VARCHAR(100) NOT NULL,
	machine TEXT NOT NULL,
	address VARCHAR(64) NOT NULL,
	status VARCHAR(16) NOT NULL,
	interval DOUBLE NOT NULL,
	created_at DOUBLE NOT NULL,
	expires_at DOUBLE NOT NULL,
	last_polled_at DOUBLE,
	node_id VARCHAR(40),
	CONSTRAINT pk_device_enrollments PRIMARY KEY (id),
	CONSTRAINT fk_device_enrollments_node_id FOREIGN KEY(node_id) REFERENCES nodes (id),
	CONSTRAINT uq_device_enrollments_device_code_hash UNIQUE (device_code_hash),
	CONSTRAINT uq_device_enrollments_user_code_hash UNIQUE (user_code_hash)
);
CREATE TABLE idempotency_records (
	token_id VARCHAR(40) NOT NULL,
	"key" VARCHAR(64) NOT NULL,
	organisation_id VARCHAR(40) NOT NULL,
	fingerprint VARCHAR(64) NOT NULL,
	answer BLOB,
	expires_at DOUBLE NOT NULL,
	CONSTRAINT pk_idempotency_records PRIMARY KEY (token_id, "key"),
	CONSTRAINT fk_idempotency_records_organisation_id FOREIGN KEY(organisation_id) REFERENCES organisations (id),
	CONSTRAINT fk_idempotency_records_token_id FOREIGN KEY(token_id) REFERENCES admin_tokens (id)
);
CREATE TABLE identities (
	issuer VARCHAR(500) NOT NULL,
	subject VARCHAR(255) NOT NULL,
	account_id VARCHAR(40) NOT NULL,
	created_at DOUBLE NOT NULL,
	CONSTRAINT pk_identities PRIMARY KEY (issuer, subject),
	CONSTRAINT fk_identities_account_id FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE TABLE invitations (
	id VARCHAR(40) NOT NULL,
	organisation_id VARCHAR(40) NOT NULL,
	name VARCHAR(100) NOT NULL,
	role VARCHAR(16) NOT NULL,
	hash VARCHAR(64) NOT NULL,
	invited_by VARCHAR(40) NOT NULL,
	created_at DOUBLE NOT NULL,
	expires_at DOUBLE NOT NULL,
	CONSTRAINT pk_invitations PRIMARY KEY (id),
	CONSTRAINT fk_invitations_organisation_id FOREIGN KEY(organisation_id) REFERENCES organisations (id),
	CONSTRAINT fk_invitations_invited_by FOREIGN KEY(invited_by) REFERENCES accounts (id) ON DELETE CASCADE,
	CONSTRAINT uq_invitations_hash UNIQUE (hash)
);
CREATE INDEX ix_accounts_organisation_id ON accounts (organisation_id);
CREATE INDEX ix_admin_tokens_organisation_id ON admin_tokens (organisation_id);
CREATE INDEX ix_api_keys_organisation_id ON api_keys (organisation_id);
CREATE UNIQUE INDEX ix_api_keys_previous_hash ON api_keys (previous_hash);
CREATE INDEX ix_audit_events_action_sequence ON audit_events (action, sequence);
CREATE INDEX ix_audit_events_actor ON audit_events (actor);
CREATE INDEX ix_audit_events_batch ON audit_events (batch);
CREATE INDEX ix_audit_events_organisation_id_action_sequence ON audit_events (organisation_id, action, sequence);
CREATE INDEX ix_audit_events_organisation_id_sequence ON audit_events (organisation_id, sequence);
CREATE INDEX ix_device_enrollments_address ON device_enrollments (address);
CREATE INDEX ix_device_enrollments_expires_at ON device_enrollments (expires_at);
CREATE INDEX ix_idempotency_records_expires_at ON idempotency_records (expires_at);
CREATE INDEX ix_idempotency_records_organisation_id ON idempotency_records (organisation_id);
CREATE INDEX ix_identities_account_id ON identities (account_id);
CREATE INDEX ix_invitations_invited_by ON invitations (invited_by);
CREATE INDEX ix_invitations_organisation_id ON invitations (organisation_id);
CREATE INDEX ix_join_tokens_organisation_id ON join_tokens (organisation_id);
CREATE INDEX ix_nodes_organisation_id ON nodes (organisation_id);
CREATE INDEX ix_portal_sessions_account_id ON portal_sessions (account_id);
CREATE INDEX ix_usage_records_organisation_id_created_at ON usage_records (organisation_id, created_at);
CREATE TABLE join_tokens (
	id VARCHAR(40) NOT NULL,
	organisation_id VARCHAR(40) NOT NULL,
	name VARCHAR(100) NOT NULL,
	hash VARCHAR(64) NOT NULL,
	region VARCHAR(32),
	region_confirmed BOOLEAN NOT NULL,
	max_uses INTEGER NOT NULL,
	uses INTEGER NOT NULL,
	created_at DOUBLE NOT NULL,
	expires_at DOUBLE NOT NULL,
	revoked_at DOUBLE,
	CONSTRAINT pk_join_tokens PRIMARY KEY (id),
	CONSTRAINT fk_join_tokens_organisation_id FOREIGN KEY(organisation_id) REFERENCES organisations (id),
	CONSTRAINT fk_join_tokens_region FOREIGN KEY(region) REFERENCES regions (code),
	CONSTRAINT uq_join_tokens_hash UNIQUE (hash)
);
CREATE TABLE nodes (
	id VARCHAR(40) NOT NULL,
	organisation_id VARCHAR(40) NOT NULL,
	name VARCHAR(100) NOT NULL,
	public_key VARCHAR(64) NOT NULL,
	region VARCHAR(32),
	region_confirmed BOOLEAN NOT NULL,
	trust VARCHAR(16) NOT NULL,
	sharing VARCHAR(16) NOT NULL,
	shared_with TEXT NOT NULL,
	machine TEXT NOT NULL,
	generation INTEGER NOT NULL,
	created_at DOUBLE NOT NULL,
	revoked_at DOUBLE,
	last_seen_at DOUBLE, next_public_key VARCHAR(64), next_key_expires_at DOUBLE, draining_since DOUBLE,
	CONSTRAINT pk_nodes PRIMARY KEY (id),
	CONSTRAINT fk_nodes_organisation_id FOREIGN KEY(organisation_id) REFERENCES organisations (id),
	CONSTRAINT fk_nodes_region FOREIGN KEY(region) REFERENCES regions (code)
);
CREATE TABLE organisations (
	id VARCHAR(40) NOT NULL,
	name VARCHAR(100) NOT NULL,
	created_at DOUBLE NOT NULL, requests_per_minute INTEGER, tokens_per_minute BIGINT, concurrent_requests INTEGER, monthly_tokens BIGINT,
	CONSTRAINT pk_organisations PRIMARY KEY (id),
	CONSTRAINT uq_organisations_name UNIQUE (name)
);
CREATE TABLE portal_sessions (
	id VARCHAR(64) NOT NULL,
	account_id VARCHAR(40) NOT NULL,
	csrf_token VARCHAR(64) NOT NULL,
	created_at DOUBLE NOT NULL,
	expires_at DOUBLE NOT NULL, address VARCHAR(64), browser VARCHAR(64),
	CONSTRAINT pk_portal_sessions PRIMARY KEY (id),
	CONSTRAINT fk_portal_sessions_account_id FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE TABLE pseudonyms (
	id VARCHAR(40) NOT NULL,
	kind VARCHAR(16) NOT NULL,
	value VARCHAR(200) NOT NULL,
	used_at DOUBLE NOT NULL,
	CONSTRAINT pk_pseudonyms PRIMARY KEY (id),
	CONSTRAINT uq_pseudonyms_kind_value UNIQUE (kind, value)
);
CREATE TABLE recovery_codes (
	account_id VARCHAR(40) NOT NULL,
	hash VARCHAR(64) NOT NULL,
	CONSTRAINT pk_recovery_codes PRIMARY KEY (account_id, hash),
	CONSTRAINT fk_recovery_codes_account_id FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE TABLE regions (
	code VARCHAR(32) NOT NULL,
	parent VARCHAR(32),
	name VARCHAR(100) NOT NULL,
	CONSTRAINT pk_regions PRIMARY KEY (code),
	CONSTRAINT fk_regions_parent FOREIGN KEY(parent) REFERENCES regions (code)
);
CREATE TABLE second_steps (
	account_id VARCHAR(40) NOT NULL,
	sealed_secret TEXT NOT NULL,
	created_at DOUBLE NOT NULL,
	confirmed_at DOUBLE,
	last_step BIGINT NOT NULL,
	CONSTRAINT pk_second_steps PRIMARY KEY (account_id),
	CONSTRAINT fk_second_steps_account_id FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE TABLE settings (
	name VARCHAR(64) NOT NULL,
	value TEXT NOT NULL,
	CONSTRAINT pk_settings PRIMARY KEY (name)
);
CREATE TABLE usage_days (
	organisation_id VARCHAR(40) NOT NULL,
	facet VARCHAR(16) NOT NULL,
	start BIGINT NOT NULL,
	key_id VARCHAR(40) NOT NULL,
	value VARCHAR(200) NOT NULL,
	requests BIGINT NOT NULL,
	prompt_tokens BIGINT NOT NULL,
	cached_tokens BIGINT NOT NULL,
	completion_tokens BIGINT NOT NULL,
	CONSTRAINT pk_usage_days PRIMARY KEY (organisation_id, facet, start, key_id, value)
)
 WITHOUT ROWID

;
CREATE TABLE usage_hours (
	organisation_id VARCHAR(40) NOT NULL,
	facet VARCHAR(16) NOT NULL,
	start BIGINT NOT NULL,
	key_id VARCHAR(40) NOT NULL,
	value VARCHAR(200) NOT NULL,
	requests BIGINT NOT NULL,
	prompt_tokens BIGINT NOT NULL,
	cached_tokens BIGINT NOT NULL,
	completion_tokens BIGINT NOT NULL,
	CONSTRAINT pk_usage_hours PRIMARY KEY (organisation_id, facet, start, key_id, value)
)
 WITHOUT ROWID

;
CREATE TABLE usage_records (
	request_id VARCHAR(40) NOT NULL,
	key_id VARCHAR(40) NOT NULL,
	organisation_id VARCHAR(40) NOT NULL,
	node_id VARCHAR(40) NOT NULL,
	region VARCHAR(32),
	model VARCHAR(200) NOT NULL,
	prompt_tokens INTEGER NOT NULL,
	cached_tokens INTEGER NOT NULL,
	completion_tokens INTEGER NOT NULL,
	ttft_ms DOUBLE,
	duration_ms DOUBLE NOT NULL,
	outcome VARCHAR(64) NOT NULL,
	created_at DOUBLE NOT NULL,
	CONSTRAINT pk_usage_records PRIMARY KEY (request_id)
);
CREATE TABLE usage_weeks (
	organisation_id VARCHAR(40) NOT NULL,
	facet VARCHAR(16) NOT NULL,
	start BIGINT NOT NULL,
	key_id VARCHAR(40) NOT NULL,
	value VARCHAR(200) NOT NULL,
	requests BIGINT NOT NULL,
	prompt_tokens BIGINT NOT NULL,
	cached_tokens BIGINT NOT NULL,
	completion_tokens BIGINT NOT NULL,
	CONSTRAINT pk_usage_weeks PRIMARY KEY (organisation_id, facet, start, key_id, value)
)
 WITHOUT ROWID

;
