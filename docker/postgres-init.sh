#!/bin/sh
# Runs once, on an empty volume: the owner of the schema, who is no superuser, and the database.
# `aforo migrate` makes the application's own login, which owns nothing.
set -eu
psql --username "$POSTGRES_USER" --set ON_ERROR_STOP=1 --set password="$AFORO_OWNER_PASSWORD" <<'SQL'
CREATE ROLE aforo_owner LOGIN CREATEROLE PASSWORD :'password';
CREATE DATABASE aforo OWNER aforo_owner;
SQL
