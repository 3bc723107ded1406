-- Once, by a superuser, in the database whose objects the services use.
CREATE ROLE app_owner NOLOGIN;
GRANT CREATE, USAGE ON SCHEMA public TO app_owner;
CREATE ROLE rotacast_admin LOGIN CREATEROLE;
-- To put login roles into the group, and to hand what they own over to it. PostgreSQL 16 and later need the admin option.
GRANT app_owner TO rotacast_admin WITH ADMIN OPTION;
-- To say which application a session is, and since when. Sessions are counted without it.
GRANT pg_read_all_stats TO rotacast_admin;
-- For on_live_sessions = terminate, and for an override that cuts sessions off.
GRANT pg_signal_backend TO rotacast_admin;
