-- Changes of balance that Shopify Flow is told of.
select 1;
