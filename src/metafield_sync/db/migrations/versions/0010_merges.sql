-- Merged and redacted customers.
select 1;
