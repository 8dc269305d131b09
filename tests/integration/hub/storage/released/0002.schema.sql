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
	last_used_at DOUBLE,
	CONSTRAINT pk_api_keys PRIMARY KEY (id),
	CONSTRAINT fk_api_keys_organisation_id FOREIGN KEY(organisation_id) REFERENCES organisations (id),
	CONSTRAINT uq_api_keys_hash UNIQUE (hash)
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
CREATE INDEX ix_accounts_organisation_id ON accounts (organisation_id);
CREATE INDEX ix_api_keys_organisation_id ON api_keys (organisation_id);
CREATE INDEX ix_device_enrollments_address ON device_enrollments (address);
CREATE INDEX ix_device_enrollments_expires_at ON device_enrollments (expires_at);
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
	last_seen_at DOUBLE, next_public_key VARCHAR(64), next_key_expires_at DOUBLE,
	CONSTRAINT pk_nodes PRIMARY KEY (id),
	CONSTRAINT fk_nodes_organisation_id FOREIGN KEY(organisation_id) REFERENCES organisations (id),
	CONSTRAINT fk_nodes_region FOREIGN KEY(region) REFERENCES regions (code)
);
CREATE TABLE organisations (
	id VARCHAR(40) NOT NULL,
	name VARCHAR(100) NOT NULL,
	created_at DOUBLE NOT NULL,
	CONSTRAINT pk_organisations PRIMARY KEY (id),
	CONSTRAINT uq_organisations_name UNIQUE (name)
);
CREATE TABLE portal_sessions (
	id VARCHAR(64) NOT NULL,
	account_id VARCHAR(40) NOT NULL,
	csrf_token VARCHAR(64) NOT NULL,
	created_at DOUBLE NOT NULL,
	expires_at DOUBLE NOT NULL,
	CONSTRAINT pk_portal_sessions PRIMARY KEY (id),
	CONSTRAINT fk_portal_sessions_account_id FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE TABLE regions (
	code VARCHAR(32) NOT NULL,
	parent VARCHAR(32),
	name VARCHAR(100) NOT NULL,
	CONSTRAINT pk_regions PRIMARY KEY (code),
	CONSTRAINT fk_regions_parent FOREIGN KEY(parent) REFERENCES regions (code)
);
CREATE TABLE settings (
	name VARCHAR(64) NOT NULL,
	value TEXT NOT NULL,
	CONSTRAINT pk_settings PRIMARY KEY (name)
);
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
	day INTEGER NOT NULL,
	CONSTRAINT pk_usage_records PRIMARY KEY (request_id)
);
