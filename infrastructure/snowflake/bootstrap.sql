-- What an ACCOUNTADMIN runs once, by hand, before anything here can be applied: the role that owns everything,
-- its user, the environments' own roles, and the way to the lake. Replace what stands in angle brackets.

use role accountadmin;

create role if not exists snowddl_admin;
grant role sysadmin to role snowddl_admin;
grant role securityadmin to role snowddl_admin;
grant role snowddl_admin to role accountadmin;

create user if not exists snowddl
    type = service
    rsa_public_key = '<public key of snowddl>'
    default_role = snowddl_admin;
grant role snowddl_admin to user snowddl;

-- SnowDDL would make these by itself, even where it is only asked for a plan.
create role if not exists dev__snowddl_admin;
grant role snowddl_admin to role dev__snowddl_admin;
grant role dev__snowddl_admin to user snowddl;
create role if not exists ci__snowddl_admin;
grant role snowddl_admin to role ci__snowddl_admin;
grant role ci__snowddl_admin to user snowddl;
create role if not exists prod__snowddl_admin;
grant role snowddl_admin to role prod__snowddl_admin;
grant role prod__snowddl_admin to user snowddl;

-- Policies on account level: who may put one on a table says technical_role.yaml.
grant apply masking policy on account to role snowddl_admin with grant option;
grant apply row access policy on account to role snowddl_admin with grant option;

-- Reads the landing prefix and what redactions leave of it, nothing else of the bucket; the trust is set up in the cloud account
-- with what `describe integration petwellness_lake` says.
create storage integration if not exists petwellness_lake
    type = external_stage
    storage_provider = 'S3'
    enabled = true
    storage_aws_role_arn = '<role of the lake bucket>'
    storage_allowed_locations = ('s3://<bucket>/landing/', 's3://<bucket>/redacted/');
grant usage on integration petwellness_lake to role snowddl_admin;
