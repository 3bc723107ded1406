-- Run once by the postgres image, in the database POSTGRES_DB, when its volume is new. docs/operate/providers.md explains each right.
CREATE ROLE payments_owner NOLOGIN;
GRANT CREATE, USAGE ON SCHEMA public TO payments_owner;
CREATE ROLE rotacast_admin LOGIN CREATEROLE PASSWORD 'rotacast-example-admin';
GRANT payments_owner TO rotacast_admin WITH ADMIN OPTION;
GRANT pg_read_all_stats TO rotacast_admin;
CREATE TABLE payments (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, amount bigint NOT NULL);
ALTER TABLE payments OWNER TO payments_owner;
